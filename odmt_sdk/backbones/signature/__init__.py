"""Bridge for modules of unknown interface, based on the signature of `forward` and trial runs."""
