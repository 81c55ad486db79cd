"""Finding the items to recommend."""
