"""Comparison of methods on real data over several seeds; start it with `run.py`."""
