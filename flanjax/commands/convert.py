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
        message = export_run(config, Path(args.output), args.step)
    progress.line(f"{message}; wrote {args.output}")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Reads weights of any known format and writes a Hugging Face directory."""
    from flanjax.convert.huggingface import save_huggingface
    from flanjax.convert.weights import import_weights
    from flanjax.data.vocabulary import load_vocabulary

    progress = Progress()
    with progress.task(f"reading {args.source}"):
        config, params = import_weights(args.source)
        is_gguf = args.source.startswith("gguf:")
        spec = args.source if is_gguf else f"tokenizer:{args.source}"
        vocabulary = load_vocabulary(spec)
    with progress.task(f"writing {args.output}"):
        save_huggingface(Path(args.output), config, params, vocabulary)
    return 0
