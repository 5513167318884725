"""`flanjax convert import|export`."""

import argparse
from pathlib import Path

from flanjax.errors import ConfigError
from flanjax.progress import Progress


def export(args: argparse.Namespace) -> int:
    """Writes a run's model as a Hugging Face directory or a T5X checkpoint."""
    from flanjax.config import load_config
    from flanjax.convert.run_export import export_run

    path = Path(args.run) / "config.gin"
    if not path.exists():
        raise ConfigError(f"no config.gin in '{args.run}'", fix="give a MODEL_DIR")
    progress = Progress()
    config, _ = load_config([str(path)], [f"MODEL_DIR={args.run}"])
    with progress.task("exporting"):
        message = export_run(
            config,
            Path(args.output),
            args.step,
            adapter=args.adapter,
            form=args.format,
            dtype=args.dtype,
            optimizer_state=args.optimizer_state,
        )
    progress.line(f"{message}; wrote {args.output}")
    source = config.initial_checkpoint
    if args.adapter and not Path(source).is_dir():
        # peft needs what the adapters go on top of in transformers' form.
        progress.line(f"its base model: flanjax convert import {source} BASE")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Reads weights of any known format and writes them in another."""
    from flanjax.convert.huggingface import save_huggingface
    from flanjax.convert.t5x import T5XSource
    from flanjax.convert.t5x_write import save_t5x
    from flanjax.convert.weights import (
        import_context_length,
        import_vocabulary,
        open_weights,
    )

    progress = Progress()
    with (
        progress.task(f"{args.source} to {args.output}"),
        open_weights(args.source) as source,
    ):
        if args.format == "t5x":
            step = source.index.step if isinstance(source, T5XSource) else 0
            save_t5x(args.output, source.config, source, step=step, dtype=args.dtype)
            return 0
        save_huggingface(
            args.output,
            source.config,
            source,
            import_vocabulary(args.source),
            context_length=import_context_length(args.source),
            dtype=args.dtype,
        )
    return 0
