"""Capture: any source becomes one captured student."""
