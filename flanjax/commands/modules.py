"""Flags that several commands read: mixture modules, feature lengths."""

import argparse
import os
import sys

from flanjax.errors import ConfigError
from flanjax.progress import Progress

DEFAULT_MODULES = ("mixtures.tiny",)


def mixture_modules(args: argparse.Namespace) -> tuple[str, ...]:
    """Returns the modules named by --mixtures, or the default ones."""
    return tuple(args.mixtures) or DEFAULT_MODULES


def load_modules(args: argparse.Namespace) -> None:
    """Imports them; TensorFlow and SeqIO come along and take their time."""
    quiet_tensorflow()
    with Progress(sys.stderr).task("loading TensorFlow and SeqIO", announce=False):
        from flanjax.data.tasks import import_mixtures

        import_mixtures(mixture_modules(args))


def feature_lengths(args: argparse.Namespace) -> dict[str, int]:
    """Returns --lengths as {"inputs": tokens, "targets": tokens}.

    Raises:
      ConfigError: not two positive numbers.
    """
    parts = args.lengths.split(",")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(
            f"--lengths {args.lengths} is not two positive numbers",
            fix="give inputs and targets tokens: --lengths 1024,256",
        )
    return {"inputs": int(parts[0]), "targets": int(parts[1])}


def quiet_tensorflow() -> None:
    """Its notes on missing GPUs are of no use here; the variable set by hand wins."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
