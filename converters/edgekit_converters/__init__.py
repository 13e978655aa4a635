"""Student to bundle: capture, resolve a recipe, apply it, verify, write."""
