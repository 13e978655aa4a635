"""Cutting a student: where it may be cut, the segments, and the proof that they answer as the uncut graph does."""
