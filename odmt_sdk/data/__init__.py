"""Interactions of users with items, and what training and evaluation read from them."""
