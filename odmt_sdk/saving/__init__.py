"""How a model becomes an adapter, and an adapter a model."""
