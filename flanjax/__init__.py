"""flanjax: instruction tuning of language models on JAX.

Importing this package does nothing: no registration, no environment changes, and
neither JAX nor TensorFlow is loaded before a command needs it.
"""

__version__ = "0.1.0"
