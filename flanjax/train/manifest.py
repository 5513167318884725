"""What a saved folder should hold: sizes and checksums, written last, checked first.

    write_manifest(folder)
    damage(folder)     # None, or "arrays/d/0f3a has 512 bytes instead of 4096"

Orbax notices a missing file or a broken index, but not every flipped byte.
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any

from flanjax.errors import CheckpointError
from flanjax.train.trees import flatten

MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Records size and CRC-32 of every file under `folder`."""
    files = {
        str(path.relative_to(folder)): _checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / MANIFEST, {"version": 1, "files": files})


def _checksum(path: Path) -> list[int]:
    """[size in bytes, CRC-32], reading the file in pieces."""
    size = crc = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]


def damage(folder: Path) -> str | None:
    """What is wrong with the files of `folder`, or None when all are as written."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        for name, (size, crc) in files.items():
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if _checksum(folder / name)[1] != crc:
                return f"{name} differs from what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return None


def write_json(path: Path, value: Any) -> None:
    """Writes JSON and forces it to the disk."""
    with path.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def describe(tree: dict[str, Any]) -> dict[str, str]:
    """{path of an array in nested dicts: "float32[2, 3]"}."""
    leaves = flatten(tree).items()
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in leaves}


def check_fits(tree: dict[str, Any], saved: dict[str, str], where: Path) -> None:
    """Raises CheckpointError, naming the first array of `tree` unlike the saved one."""
    wanted = describe(tree)
    for name in sorted(wanted.keys() | saved.keys()):
        if wanted.get(name) != saved.get(name):
            raise CheckpointError(
                f"the checkpoint does not fit this configuration: {name} is "
                f"{saved.get(name, 'absent')} there and {wanted.get(name, 'absent')} "
                "here",
                where=str(where),
                fix="use the model and optimiser it was saved with, or another run "
                "directory",
            )
