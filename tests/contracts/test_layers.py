"""Who may import whom, and how long files and functions may grow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("flanjax", "mixtures") for path in (ROOT / folder).rglob("*.py")
)

# Module name prefix -> top-level packages it must not import, however deep.
FORBIDDEN = {
    "flanjax.data": {"jax", "flax", "optax", "orbax"},
    "flanjax.models": {"tensorflow", "seqio"},
    "flanjax.report": {"jax", "flax", "tensorflow", "seqio"},
    "flanjax.eval.extract": {"jax"},
    "flanjax.eval.scorers": {"jax"},
    "flanjax.eval.stats": {"jax"},
    "flanjax.eval.records": {"jax"},
    "flanjax.eval.suites": {"jax"},
    "flanjax": {"mixtures"},
}
MAY_IMPORT_TENSORFLOW = {
    "flanjax.data.render",
    "flanjax.data.tasks",
    "flanjax.data.prepare",
    "flanjax.data.seqio_vocabulary",
    "flanjax.data.tfds_source",
}
FILE_LIMIT, FUNCTION_LIMIT, LOOP_LIMIT = 400, 60, 150


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines of signature and body; a docstring may be as long as it needs."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_imports_only_what_its_layer_may(path):
    name, imported = _name(path), {module.split(".")[0] for module in _imports(path)}
    for prefix, forbidden in FORBIDDEN.items():
        if name == prefix or name.startswith(prefix + "."):
            assert not imported & forbidden, f"{name} imports {imported & forbidden}"
    if name.startswith("flanjax") and imported & {
        "tensorflow",
        "tensorflow_datasets",
        "seqio",
    }:
        assert name in MAY_IMPORT_TENSORFLOW or name.startswith("flanjax.commands.")
    if "gin" in imported:
        assert name == "flanjax.config"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= FILE_LIMIT
    limit = LOOP_LIMIT if _name(path) == "flanjax.train.loop" else FUNCTION_LIMIT
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert _code_lines(node) <= limit, f"{path}: {node.name}"


def test_the_loop_reads_in_under_150_lines():
    text = (ROOT / "flanjax/train/loop.py").read_text()
    assert text.count("\n") <= LOOP_LIMIT


def test_there_is_no_drawer_for_odds_and_ends():
    odd = {"utils", "helpers", "common", "misc"}
    assert not [path for path in SOURCES if path.stem in odd]


def test_package_files_do_nothing_when_imported():
    for path in (ROOT / "flanjax").rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, ast.Expr | ast.Assign), path
