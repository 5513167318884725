"""Which mixture modules a command imports, and TensorFlow's messages meanwhile."""

import argparse
import os

from flanjax.progress import Progress

DEFAULT_MODULES = ("mixtures.tiny",)


def mixture_modules(args: argparse.Namespace) -> tuple[str, ...]:
    """Returns the modules named by --mixtures, or the default ones."""
    return tuple(args.mixtures) or DEFAULT_MODULES


def load_modules(args: argparse.Namespace) -> None:
    """Imports them; TensorFlow and SeqIO come along and take their time."""
    quiet_tensorflow()
    with Progress().task("loading TensorFlow and SeqIO", announce=False):
        from flanjax.data.tasks import import_mixtures

        import_mixtures(mixture_modules(args))


def quiet_tensorflow() -> None:
    """Its notes on missing GPUs are of no use here; the variable set by hand wins."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
