"""Figures of the project, measured and written to docs/results/. `make benchmark` runs all of them."""
