"""The training objective: in-batch softmax and online distillation."""
