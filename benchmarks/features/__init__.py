"""Benchmarks of feature extraction, and of items with missing or late features."""
