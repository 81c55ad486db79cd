"""Benchmarks of pretrained adapters on catalogues that they were not trained on."""
