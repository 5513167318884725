"""Writes the tree of WORKSPACE.md from the files' own first lines.

python tests/contracts/workspace_tree.py
"""

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"


def tree() -> str:
    """One line per file of the machinery, content, choices and launch scripts."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    lines, folder = [], None
    for name in sorted(listed, key=lambda name: (str(Path(name).parent), name)):
        path = Path(name)
        comment = _comment(ROOT / path)
        if path.parts[0] not in ("flanjax", "gin", "launch", "mixtures") or not comment:
            continue
        if path.parent != folder:
            folder = path.parent
            lines.append(f"{folder}/")
        lines.append(f"    {path.name:<26} {comment}")
    return "\n".join(lines) + "\n"


def _comment(path: Path) -> str:
    """The first sentence a file says about itself."""
    if not path.exists():
        return ""
    text = path.read_text()
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    if path.suffix in (".sh", ".gin", ".toml"):
        lines = [line for line in text.splitlines() if not line.startswith("#!")]
        return lines[0].lstrip("# ") if lines and lines[0].startswith("#") else ""
    return ""


def replaced(text: str) -> str:
    """WORKSPACE.md with the tree as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tree() + END + after


if __name__ == "__main__":
    document = ROOT / "WORKSPACE.md"
    document.write_text(replaced(document.read_text()))
