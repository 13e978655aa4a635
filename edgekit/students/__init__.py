"""Reference students: examples to copy, not a framework."""
