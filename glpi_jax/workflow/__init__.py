"""Runs from config to report: workdir, what training starts from, rounds, benchmarks."""
