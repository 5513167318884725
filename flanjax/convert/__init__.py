"""Weights in and out: Hugging Face and GGUF."""
