"""Benchmarks of the time and memory of training, recommending and reading data."""
