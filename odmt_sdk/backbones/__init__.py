"""Sequence backbones: the protocol they follow and those that come with the package."""
