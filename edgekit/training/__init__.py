"""Helpers for a person's own training loop: exits on a torch student, and a bottleneck at a split point."""
