"""Nested dicts of arrays by the names of their leaves.

flatten({"encoder": {"encoder_norm": {"scale": x}}})
# {"encoder/encoder_norm/scale": x}
"""

from collections.abc import Mapping
from typing import Any, cast

from flax.traverse_util import flatten_dict, unflatten_dict

Tree = Any  # Nested dicts of arrays, of axis-name tuples, or of abstract arrays.


def flatten(tree: Tree) -> dict[str, Any]:
    """Returns {names joined by "/": leaf}; tuples of axis names are leaves."""
    return cast(dict[str, Any], flatten_dict(tree, sep="/"))


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `flatten`."""
    return cast(dict[str, Any], unflatten_dict(dict(leaves), sep="/"))
