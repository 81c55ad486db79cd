"""Encodes raw texts, images and arrays with pretrained encoders."""
