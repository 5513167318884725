"""Digests of values, files and functions: what makes prepared data stale.

with recorded_files() as files:
    source.fingerprint("train")
files                          # {"/data/boolq.jsonl": [4096, 17953..., "9f86d..."]}
change_of("/data/boolq.jsonl", files["/data/boolq.jsonl"])       # "" if none
"""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flanjax.errors import DataError


def digest(*parts: Any) -> str:
    """Returns a hex digest (32 characters) of values that JSON can write."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# Size in bytes, time of change in ns, and sha256 in hex or "" where it does not count.
Stamp = list[Any]
_recorded: contextvars.ContextVar[dict[str, Stamp] | None] = contextvars.ContextVar(
    "recorded", default=None
)


@contextlib.contextmanager
def recorded_files() -> Iterator[dict[str, Stamp]]:
    """Yields a dict that fills with every file a digest is taken of, by its path."""
    files: dict[str, Stamp] = {}
    token = _recorded.set(files)
    try:
        yield files
    finally:
        _recorded.reset(token)


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file; read again only when size or time changed."""
    size, modified = _size_and_time(path)
    content = _content_digest(path, size, modified)
    _record(path, [size, modified, content])
    return content


def file_times(path: Path) -> list[int]:
    """Returns size and time of change (ns): what a file too large to read counts by."""
    size, modified = _size_and_time(path)
    _record(path, [size, modified, ""])
    return [size, modified]


def change_of(path: str, stamp: Stamp) -> str:
    """Says what has become of a recorded file: "", "is gone" or "has changed".

    A file of the same size and time is not read; one with another time only if its
    content counts.
    """
    try:
        size, modified = _size_and_time(Path(path))
    except DataError:
        return "is gone"
    if [size, modified] == stamp[:2]:
        return ""
    same = size == stamp[0] and stamp[2] == file_digest(Path(path))
    return "" if same else "has changed"


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DataError(
            "no such file",
            where=str(path),
            fix="check the path, or fetch the data first (`flanjax data fetch`)",
        ) from error
    return status.st_size, status.st_mtime_ns


def _record(path: Path, stamp: Stamp) -> None:
    files = _recorded.get()
    if files is not None:
        files[os.path.abspath(path)] = stamp


@functools.cache
def _content_digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def function_identity(function: Callable | None) -> str:
    """Returns a digest of a function's text and of what that text refers to.

    Follows functions of the same package and of flanjax, what the function closes over
    and its module's constants, so that changing a label list in a mixture changes the
    identity of the `fields` functions that read it, and of no others. A function is
    looked at once in a process: thousands of tasks ask for the same ones.
    """
    try:
        return _identity(function)
    except TypeError:  # A callable that cannot be hashed.
        return _identity.__wrapped__(function)


@functools.cache
def _identity(function: Callable | None) -> str:
    packages = {"flanjax", _package(getattr(function, "__module__", ""))}
    return digest(_Description(packages).of(function))


def _package(module: str | None) -> str:
    return (module or "").split(".")[0]


class _Description:
    """Turns a value into what JSON can write, without addresses or hash orders."""

    def __init__(self, packages: set[str]):
        self._packages, self._seen = packages, set()

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, str | bytes | int | float | re.Pattern):
            return repr(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, functools.partial):
            return [self.of(each) for each in (value.func, value.args, value.keywords)]
        if isinstance(value, tuple | list):
            return [self.of(each) for each in value]
        if isinstance(value, set | frozenset):
            return sorted(str(self.of(each)) for each in value)
        if isinstance(value, dict):
            return [[self.of(key), self.of(each)] for key, each in value.items()]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return [type(value).__qualname__, self.of(vars(value))]
        return getattr(value, "__qualname__", type(value).__qualname__)

    def _function(self, function: types.FunctionType) -> Any:
        name = [function.__module__, function.__qualname__]
        known = id(function) in self._seen
        if known or _package(function.__module__) not in self._packages:
            return name
        self._seen.add(id(function))
        try:
            text = inspect.getsource(function)
        except OSError:  # Typed at a prompt: there is no file to read it from.
            text = function.__code__.co_code.hex()
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        return [
            text,
            self.of(function.__defaults__),
            self.of(cells),
            [[key, self.of(value)] for key, value in self._globals(function)],
        ]

    def _globals(self, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        """Yields the globals it names, and the attributes of modules among them."""
        names = sorted(_names(function.__code__))
        for name in names:
            value = function.__globals__.get(name)
            if not isinstance(value, types.ModuleType):
                yield name, value
            elif _package(value.__name__) in self._packages:
                yield from ((n, getattr(value, n)) for n in names if hasattr(value, n))


def _names(code: types.CodeType) -> set[str]:
    """Names used by a function, by its lambdas and comprehensions included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names
