"""Benchmark: grids of runs, the paper's among them, and results beside published values."""
