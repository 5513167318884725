"""Flags that several commands read: mixture, modules, store, lengths, gin files."""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from flanjax.errors import ConfigError
from flanjax.progress import Progress

if TYPE_CHECKING:
    from flanjax.config import RunConfig
    from flanjax.data.store import PrepareConfig

DEFAULT_MODULES = ("mixtures.tiny",)


def mixture_modules(args: argparse.Namespace) -> tuple[str, ...]:
    """Returns the modules named by --mixtures, or the default ones."""
    return tuple(args.mixtures) or DEFAULT_MODULES


def load_modules(args: argparse.Namespace, more: Sequence[str] = ()) -> None:
    """Imports --mixtures and `more`; TensorFlow and SeqIO take their time."""
    with loading_tensorflow() as stderr:
        with Progress(stderr).task("loading TensorFlow and SeqIO", announce=False):
            from flanjax.data.tasks import import_mixtures
    import_mixtures([*args.mixtures, *more] or DEFAULT_MODULES)


def prepare_config(
    args: argparse.Namespace, mixture: str | None, **more
) -> "PrepareConfig":
    """Returns what to prepare, as the flags say.

    Args:
      args: mixtures, vocabulary, store_dir, allow_missing.
      mixture: its name, if one was given.
      **more: further fields.

    Raises:
      ConfigError: no mixture is named.
    """
    from flanjax.data.store import PrepareConfig

    if not mixture:
        raise ConfigError(
            "no mixture is named",
            fix="name one and its module (--mixtures), or --gin_file=FILE",
        )
    return PrepareConfig(
        mixture=mixture,
        mixture_modules=mixture_modules(args),
        vocabulary=args.vocabulary,
        store_dir=args.store_dir,
        allow_missing=args.allow_missing,
        **more,
    )


def run_config(args: argparse.Namespace) -> "RunConfig":
    """Returns the run that --gin_file and --gin.NAME=VALUE describe."""
    from flanjax.config import load_config

    # Where the run will be kept does not matter to its data.
    bindings = ["MODEL_DIR=unused", *args.bindings]
    paths = [path for path in args.gin_search_paths.split(",") if path]
    return load_config(args.gin_file, bindings, paths)[0]


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


@contextlib.contextmanager
def loading_tensorflow() -> Iterator[TextIO]:
    """Keeps TensorFlow's notes on missing GPUs back while it is imported.

    They come before it reads its log level. An import that fails shows them.

    Yields:
      The process's standard error as it was, for what should be seen meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w") as stderr, tempfile.TemporaryFile("w+") as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield stderr
        except BaseException:
            kept.seek(0)
            stderr.write(kept.read())
            raise
        finally:
            stderr.flush()
            os.dup2(stderr.fileno(), 2)
