"""Figures of the project, measured and written to docs/results/. `make benchmark` runs all, `python -m benchmarks NAME` one."""
