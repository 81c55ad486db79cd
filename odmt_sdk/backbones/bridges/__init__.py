"""Bridges to `SequenceBackbone` for the interfaces of torch, transformers, PEFT and others."""
