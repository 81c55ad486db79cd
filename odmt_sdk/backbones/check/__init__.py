"""`check_backbone`: checks of a backbone before training."""
