"""Training with `transformers.Trainer`."""
