"""Passes over a TFLite model: each changes one thing, finds its place by structure, and says before and after."""
