"""`flanjax convert import|export`."""

import argparse
from pathlib import Path

from flanjax.errors import ConfigError
from flanjax.progress import Progress


def export(args: argparse.Namespace) -> int:
    """Writes a run's model as a Hugging Face directory."""
    from flanjax.config import load_config
    from flanjax.convert.run_export import export_run

    path = Path(args.run) / "config.gin"
    if not path.exists():
        raise ConfigError(f"no config.gin in '{args.run}'", fix="give a MODEL_DIR")
    progress = Progress()
    config, _ = load_config([str(path)], [f"MODEL_DIR={args.run}"])
    with progress.task("exporting"):
        message = export_run(
            config, Path(args.output), args.step, adapter=args.adapter
        )
    progress.line(f"{message}; wrote {args.output}")
    source = config.initial_checkpoint
    if args.adapter and not Path(source).is_dir():
        # peft needs what the adapters go on top of in transformers' form.
        progress.line(f"its base model: flanjax convert import {source} BASE")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Reads weights of any known format and writes a Hugging Face directory."""
    from flanjax.convert.huggingface import save_huggingface
    from flanjax.convert.place import load_params
    from flanjax.convert.weights import (
        import_context_length,
        import_vocabulary,
        open_weights,
    )

    progress = Progress()
    with progress.task(f"reading {args.source}"):
        with open_weights(args.source) as source:
            config, params = source.config, load_params(source)
        vocabulary = import_vocabulary(args.source)
        length = import_context_length(args.source)
    with progress.task(f"writing {args.output}"):
        save_huggingface(args.output, config, params, vocabulary, context_length=length)
    return 0
