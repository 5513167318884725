"""From raw instruction datasets to packed batches; imports no JAX."""
