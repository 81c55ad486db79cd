"""Training through `transformers.Trainer`."""
