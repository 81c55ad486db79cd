"""Comparison with other libraries."""
