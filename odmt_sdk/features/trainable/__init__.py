"""Content encoders that are trained with the model, by LoRA."""
