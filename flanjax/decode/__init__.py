"""Text generation from a model's key/value cache."""
