"""How T5X lays out parameters and Adafactor's slots, and flanjax does.

    name = "encoder/encoder/attention/query/kernel"      # (embed, layers, heads, kv)
    take_layer(name, "v", array, 3)                      # (embed, heads * kv)
    join_layers(name, "v", stacked, head_dim=64)         # T5X's array again

T5X's scanned network has the layer axis second, also where that is the middle of a
kernel, and a slot of a factored kernel has the axes that are left: of `query` v_row is
(embed, layers) and v_col (layers, heads, kv), of `out`, (heads, layers, kv, embed),
v_row is (layers, embed) and v_col (heads, layers, kv). flanjax puts layers first, and
heads and kv in one axis.
"""

import dataclasses
import re

import numpy as np

from flanjax.convert.names import Entry
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config
from flanjax.train.trees import flatten

# Adafactor's state of one parameter, by the names that T5X and flanjax share. A
# parameter itself is laid out as `v` and `m` are.
SLOTS = ("v_row", "v_col", "v", "m")

_INDEXED = re.compile(r"(.+)\[(\d+)\]")
_ATTENTION = re.compile(r"attention/(query|key|value|out)/kernel$")
_FROM_EMBED_LAST = ("out/kernel", "wo/kernel")


def is_scanned(config: T5Config | DecoderConfig) -> bool:
    """Whether T5X computes this model's function with its scanned network."""
    return isinstance(config, T5Config) and config.relpos_per_layer


def t5x_entries(config: T5Config | DecoderConfig) -> list[Entry]:
    """Returns every parameter and the T5X arrays it is made of.

    Args:
      config: the model's; layers are taken as scanned, adapters as merged.

    Returns:
      Entries with one name for each layer: an array's in the minimal network,
      "array[layer]" in the scanned one.
    """
    entries = []
    plain = dataclasses.replace(config, scan_layers=True, lora=type(config.lora)())
    for path, leaf in flatten(abstract_params(build_model(plain))[0]).items():
        parts = tuple(path.split("/"))
        if parts[1] == "layers":
            names = _layer_names(parts, leaf.shape[0], is_scanned(config))
            entries.append(Entry(parts, names, stacked=True))
        else:
            inside = isinstance(config, DecoderConfig) and parts[0] != "decoder"
            entries.append(Entry(parts, (f"decoder/{path}" if inside else path,)))
    return entries


def split_name(name: str) -> tuple[str, int | None]:
    """Splits "array[layer]" into the array's name and the layer; None for no layer."""
    match = _INDEXED.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def take_layer(name: str, slot: str, array: np.ndarray, layer: int) -> np.ndarray:
    """Returns one layer of a scanned array, heads and kv merged.

    Args:
      name: of the parameter in T5X's scanned network.
      slot: one of SLOTS; "v" also for the parameter itself.
      array: T5X's; an unused slot has shape (1,), which all layers share.
      layer: which one.
    """
    if array.shape == (1,):
        return array
    array = np.take(array, layer, axis=_layers_axis(name, slot))
    if not _ATTENTION.search(name) or slot == "v_row":
        return array
    if slot == "v_col":
        return array.reshape(-1)
    if name.endswith(_FROM_EMBED_LAST):
        return array.reshape(-1, array.shape[-1])
    return array.reshape(array.shape[0], -1)


def join_layers(
    name: str, slot: str, stacked: np.ndarray, head_dim: int, used: bool = True
) -> np.ndarray:
    """Undoes `take_layer` for all layers.

    Args:
      name: of the parameter in T5X's scanned network.
      slot: one of SLOTS; "v" also for the parameter itself.
      stacked: flanjax's array, layers first.
      head_dim: width of a head.
      used: False for a slot that the parameter does not use.
    """
    if not used:
        return stacked[0]
    if _ATTENTION.search(name) and slot != "v_row":
        layers = stacked.shape[0]
        if slot == "v_col":
            stacked = stacked.reshape(layers, -1, head_dim)
        elif name.endswith(_FROM_EMBED_LAST):
            stacked = stacked.reshape(layers, -1, head_dim, stacked.shape[-1])
        else:
            stacked = stacked.reshape(*stacked.shape[:2], -1, head_dim)
    return np.moveaxis(stacked, 0, _layers_axis(name, slot))


def _layers_axis(name: str, slot: str) -> int:
    """Where the layer axis is: it stands before the second axis of the parameter."""
    embed_last = name.endswith(_FROM_EMBED_LAST)
    if slot == "v_row":  # Has the embed axis alone.
        return 0 if embed_last else 1
    if slot == "v_col":  # Has all but the embed axis.
        return 1 if embed_last else 0
    return 1


def _layer_names(parts: tuple[str, ...], layers: int, scanned: bool) -> tuple[str, ...]:
    stack, _, *rest = parts
    tail = "/".join(rest)
    if scanned:
        return tuple(f"{stack}/{stack}/{tail}[{i}]" for i in range(layers))
    return tuple(f"{stack}/layers_{i}/{tail}" for i in range(layers))
