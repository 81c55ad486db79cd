"""Fusions to compare with: other ways from an item's ID and content to its embeddings."""
