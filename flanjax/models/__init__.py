"""Encoder-decoder and decoder-only language models in Flax Linen."""
