"""T5X checkpoints as weights: what model they are of, and which array is what.

    with open_t5x("flan_t5_small") as source:      # or .../checkpoint_1198000
        source.config                              # T5Config(vocab_size=32128, ...)
        params = load_params(source)

Two layouts are read. The minimal network has one subtree a layer, `layers_0`, with 2-D
kernels, and one table of relative positions for a stack. The scanned network has one
subtree, `encoder/encoder`, with the layer axis second and 4-D attention kernels,
(embed, layers, heads, kv) or (heads, layers, kv, embed), and a table in every layer.
Source: https://github.com/google-research/t5x/tree/main/t5x/examples.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.convert.names import Entry
from flanjax.convert.t5x_index import Index, find_checkpoint
from flanjax.convert.t5x_layout import split_name, t5x_entries, take_layer
from flanjax.errors import CheckpointError, nearest
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config

TARGET = "target/"
# What arrays do not say: taken from the caller's configuration where there is one.
_UNSEEN = ("relpos_max_distance", "norm_epsilon")
_LISTED = 5


class T5XSource:
    """The weights of a T5X checkpoint; a `WeightSource`.

    Attributes:
      where: the checkpoint's directory.
      config: the model's configuration, layers scanned, without adapters.
      index: the files behind it.
    """

    def __init__(self, index: Index, config: T5Config | DecoderConfig | None):
        self.where, self.index = index.where, index
        shapes = {
            name.removeprefix(TARGET): spec.shape
            for name, spec in index.specs.items()
            if name.startswith(TARGET)
        }
        self.config = _infer(shapes, config, self.where)
        self._entries = t5x_entries(self.config)
        names = {split_name(n)[0] for e in self._entries for n in e.names}
        self._unplaced = sorted(shapes.keys() - names)
        if missing := sorted(names - shapes.keys()):
            raise CheckpointError(
                f"{len(missing)} arrays are missing: {', '.join(missing[:_LISTED])}."
                f"{nearest(missing[0], self._unplaced)}",
                where=self.where,
            )

    def entries(self) -> list[Entry]:
        """Returns every parameter and the arrays it is made of."""
        return self._entries

    def read(self, name: str) -> np.ndarray:
        """Returns one layer's array as float32, heads merged into one axis.

        Raises:
          CheckpointError: it is missing, damaged or not what the index says.
        """
        name, layer = split_name(name)
        array = self.index.read(TARGET + name)
        if layer is not None:
            array = take_layer(name, "v", array, layer)
        return np.asarray(array, np.float32)

    def unplaced(self) -> list[str]:
        """Returns the arrays that the model has no parameter for."""
        return self._unplaced


@contextlib.contextmanager
def open_t5x(
    directory: str | Path, config: T5Config | DecoderConfig | None = None
) -> Iterator[T5XSource]:
    """Opens a checkpoint; reads its index and no array.

    Args:
      directory: of the checkpoint, or one that holds checkpoint_N: the newest is taken.
      config: the model it should be of; gives what arrays do not say (activations of
        the feed-forward block, epsilon, the farthest bucket). T5 1.1's without it, or
        T5 1.0's where the block is not gated.

    Raises:
      ConfigError: there is no checkpoint.
      CheckpointError: it cannot be read, or is no T5 model.
    """
    yield T5XSource(Index(find_checkpoint(directory)), config)


def _infer(
    shapes: Mapping[str, tuple[int, ...]],
    wanted: T5Config | DecoderConfig | None,
    where: str,
) -> T5Config | DecoderConfig:
    """The configuration that these arrays have; raises where they are no T5."""
    encoder = any(name.startswith("encoder/") for name in shapes)
    scanned = any(name.startswith("decoder/decoder/") for name in shapes)
    seen = _Shapes(shapes, scanned, where)
    embedding = "token_embedder/embedding"
    vocab, emb = seen.get(embedding if encoder else f"decoder/{embedding}", 2)
    rank = 3 if scanned else 2
    table = seen.get(seen.layer("decoder", "relpos_bias/rel_embedding", True), rank)
    heads, buckets = table[0], table[-1]
    query = seen.get(
        seen.layer("decoder", "self_attention/query/kernel"), 4 if scanned else 2
    )
    width = int(np.prod(query[2:] if scanned else query[1:]))
    gated = seen.layer("decoder", "mlp/wi_0/kernel") in shapes
    branch = "mlp/wi_0/kernel" if gated else "mlp/wi/kernel"
    wi = seen.get(seen.layer("decoder", branch), rank)
    tied = "decoder/logits_dense/kernel" not in shapes
    if width % heads:
        raise CheckpointError(
            f"{heads} heads cannot share {width} columns of the query kernel",
            where=where,
        )
    fields: dict[str, Any] = {
        "vocab_size": vocab,
        "emb_dim": emb,
        "num_heads": heads,
        "head_dim": width // heads,
        "mlp_dim": wi[-1],
        "mlp_activations": ("gelu", "linear") if gated else ("relu",),
        "logits_via_embedding": tied,
        "relpos_buckets": buckets,
        "norm_epsilon": 1e-6,
    }
    if encoder:
        fields["num_encoder_layers"] = seen.count("encoder")
        fields["num_decoder_layers"] = seen.count("decoder")
        fields["relpos_per_layer"] = scanned
        config: T5Config | DecoderConfig = T5Config(**fields)
    else:
        config = DecoderConfig(
            **fields,
            num_kv_heads=heads,
            num_layers=seen.count("decoder"),
            positions="relative",
            scale_attention=False,
            scale_tied_logits=tied,
        )
    if type(wanted) is not type(config):
        return config
    return dataclasses.replace(config, **_unseen(config, wanted))


def _unseen(config: Any, wanted: Any) -> dict[str, Any]:
    """What the caller's configuration says and arrays do not."""
    unseen = {name: getattr(wanted, name) for name in _UNSEEN}
    if len(wanted.mlp_activations) == len(config.mlp_activations):
        unseen["mlp_activations"] = wanted.mlp_activations
    return unseen


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """The arrays' shapes by the names of one of the two layouts."""

    shapes: Mapping[str, tuple[int, ...]]
    scanned: bool
    where: str

    def get(self, name: str, rank: int) -> tuple[int, ...]:
        if name not in self.shapes:
            raise CheckpointError(
                f"no T5 model: array '{name}' is missing.{nearest(name, self.shapes)}",
                where=self.where,
                fix="the minimal and the scanned T5 network of T5X can be read, and "
                "its decoder-only one",
            )
        shape = self.shapes[name]
        if len(shape) != rank:
            raise CheckpointError(
                f"array '{name}' has shape {shape}; {rank} dimensions are expected",
                where=self.where,
            )
        return shape

    def layer(self, stack: str, tail: str, outside: bool = False) -> str:
        """Name of a first layer's array; `outside`: of the stack where not scanned."""
        if self.scanned:
            return f"{stack}/{stack}/{tail}"
        return f"{stack}/{tail}" if outside else f"{stack}/layers_0/{tail}"

    def count(self, stack: str) -> int:
        if self.scanned:
            return self.get(f"{stack}/{stack}/mlp/wo/kernel", 3)[1]
        pattern = re.compile(rf"{stack}/layers_(\d+)/")
        found = {int(m[1]) for name in self.shapes if (m := pattern.match(name))}
        return max(found, default=-1) + 1
