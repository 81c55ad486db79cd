"""How well a model ranks the item that comes next."""
