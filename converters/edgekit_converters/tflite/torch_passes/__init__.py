"""Passes over the torch program before litert-torch lowers it."""
