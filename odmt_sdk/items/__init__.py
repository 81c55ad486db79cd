"""Items: their features and the encoders that turn them into embeddings."""
