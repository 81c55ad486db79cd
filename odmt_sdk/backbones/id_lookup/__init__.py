"""Bridge for backbones that take item ids and look them up in an embedding table of their own."""
