"""Digests of values, files and functions: what makes prepared data stale."""

import functools
import hashlib
import inspect
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flanjax.errors import DataError


def digest(*parts: Any) -> str:
    """Returns a hex digest (32 characters) of values that JSON can write."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file; read again only when size or time changed."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DataError(
            "no such file",
            where=str(path),
            fix="check the path, or fetch the data first (`flanjax data fetch`)",
        ) from error
    return _content_digest(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _content_digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def function_identity(function: Callable | None) -> str:
    """Returns a digest of a function's text and of what it refers to in its module.

    Follows functions of the same module, the values that the function closes over and
    plain constants, so that changing a label list in a mixture changes the identity of
    the `fields` functions that read it and of no others.
    """
    return digest(_describe(function, "", set()))


def _describe(value: Any, module: str, seen: set[int]) -> Any:
    if isinstance(value, functools.partial):
        inner = [_describe(value.func, module, seen), repr(value.args)]
        return [*inner, repr(sorted(value.keywords.items()))]
    if not isinstance(value, types.FunctionType):
        return _describe_value(value)
    if id(value) in seen or (module and value.__module__ != module):
        return [value.__module__, value.__qualname__]
    seen.add(id(value))
    try:
        text = inspect.getsource(value)
    except OSError:  # Typed at a prompt: there is no file to read it from.
        text = value.__code__.co_code.hex()
    names = [name for name in _names(value.__code__) if name in value.__globals__]
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    inside = [(name, value.__globals__[name]) for name in sorted(names)]
    inside += zip(value.__code__.co_freevars, cells, strict=True)
    described = [[n, _describe(v, value.__module__, seen)] for n, v in inside]
    return [text, repr(value.__defaults__), described]


def _names(code: types.CodeType) -> set[str]:
    """Global names used by a function, its lambdas and comprehensions included."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


_PLAIN = (str, bytes, int, float, tuple, list, dict)


def _describe_value(value: Any) -> str:
    if isinstance(value, frozenset | set):
        return repr(sorted(map(repr, value)))
    if (
        isinstance(value, str | bytes | int | float | tuple | list | dict)
        or value is None
    ):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__)
