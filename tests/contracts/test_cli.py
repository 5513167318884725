"""The command line's surface, speed and exit statuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from flanjax.cli import build_parser, main

ROOT = Path(__file__).resolve().parents[2]

SURFACE = {
    "quickstart",
    "train",
    "check",
    "report",
    "tasks",
    "mixture show",
    "data fetch",
    "data check",
    "data prepare",
    "data show",
    "convert export",
    "convert import",
    "verify golden",
    "verify packing",
    "verify resume",
}


def _leaves(parser, prefix=""):
    groups = [a for a in parser._actions if hasattr(a, "choices") and a.choices]
    groups = [a for a in groups if isinstance(a.choices, dict)]
    if not groups:
        return {prefix.strip(): parser}
    found = {}
    for name, child in groups[0].choices.items():
        found |= _leaves(child, f"{prefix} {name}")
    return found


def test_commands_are_added_on_purpose():
    assert set(_leaves(build_parser())) == SURFACE


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_every_command_has_an_example_and_a_function(name):
    parser = _leaves(build_parser())[name]
    assert "example: flanjax" in parser.epilog
    module, function = parser.get_default("function").split(":")
    tree = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    assert f"def {function}(" in tree


def test_help_loads_neither_jax_nor_tensorflow():
    code = (
        "import sys; from flanjax.cli import build_parser; build_parser();"
        "print([m for m in ('jax', 'tensorflow', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "argv", [["tasks", "--colour"], ["train", "--gin_fil=x"], ["report", "nowhere"]]
)
def test_usage_errors_end_with_status_2(argv, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("error: ")
