"""Weights in and out: Hugging Face, T5X and GGUF."""
