"""The documents say what is true, and nothing that should not be published."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _tree_module():
    path = Path(__file__).with_name("workspace_tree.py")
    spec = importlib.util.spec_from_file_location("workspace_tree", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _in_git() -> bool:
    command = ["git", "rev-parse", "--show-toplevel"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode == 0 and Path(done.stdout.strip()) == ROOT


def test_the_tree_of_workspace_is_the_tree():
    if not _in_git():
        pytest.skip("not a git checkout: the tree is made from git's list of files")
    text = (ROOT / "WORKSPACE.md").read_text()
    fix = "run python tests/contracts/workspace_tree.py"
    assert _tree_module().replaced(text) == text, fix


def test_relative_links_of_the_documents_lead_somewhere():
    for name in ("README.md", "WORKSPACE.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), f"{name}: {target}"


def test_commands_in_the_readme_exist():
    from flanjax.cli import build_parser

    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^(?:\$ )?flanjax ((?:[a-z_]+ ?){1,2})", text, re.M)
    assert commands
    known = build_parser()._subparsers._group_actions[0].choices
    for command in commands:
        assert command.split()[0] in known, command


def test_recipes_named_in_the_documents_exist():
    for name in ("README.md", "WORKSPACE.md"):
        for recipe in re.findall(r"gin/[\w/]+\.gin", (ROOT / name).read_text()):
            assert (ROOT / recipe).exists(), recipe


def test_every_faithful_switch_is_in_the_documents():
    from flanjax.data.faithful import SWITCHES

    text = (ROOT / "WORKSPACE.md").read_text()
    for name, what in SWITCHES.items():
        assert f"| `{name}` | {what} |" in text
