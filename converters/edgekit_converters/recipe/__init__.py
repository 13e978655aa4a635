"""The resolved recipe as data."""
