"""A directory of numbers recorded from T5X: sizes, arrays, and what was read of them.

    golden = Golden.open("../shared/golden/t5x")
    params = golden.params("params.npz")      # nested, layers stacked, flanjax's names
    model = golden.encoder_decoder()          # of the sizes in meta.json

Sizes and hyperparameters come from `meta.json`, whose `arrays` lists the .npz files.
Every array that is read is noted, so that `unread` can name what no check looked at.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.convert.t5x_layout import SLOTS, take_layer
from flanjax.models.build import build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import stack_layers
from flanjax.models.t5 import T5Config
from flanjax.train.trees import unflatten

EOS_ID = 1


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of one file; taking one out notes that it was read."""

    def __init__(self, values: Mapping[str, np.ndarray], read: set[str]):
        self._values, self._read = values, read

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._values[name]
        self._read.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names start with `prefix`, without it."""
        return {n.removeprefix(prefix): self[n] for n in self if n.startswith(prefix)}


@dataclasses.dataclass(frozen=True)
class Golden:
    """One directory, read on demand.

    Attributes:
      directory: where meta.json and the .npz files are.
      meta: the contents of meta.json.
      read: for each file that was opened, the names of the arrays taken from it.
    """

    directory: Path
    meta: Mapping[str, Any]
    read: dict[str, set[str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, directory: str | Path) -> "Golden":
        """Reads meta.json.

        Raises:
          OSError: it cannot be read.
          ValueError: it is not JSON.
        """
        directory = Path(directory)
        return cls(directory, json.loads((directory / "meta.json").read_text()))

    def files(self, pattern: str) -> list[re.Match[str]]:
        """Matches of a regular expression with whole names of listed .npz files."""
        found = [re.fullmatch(pattern, name) for name in self.meta["arrays"]]
        return [match for match in found if match]

    def arrays(self, name: str) -> Arrays:
        """The arrays of an .npz file.

        Raises:
          OSError, ValueError: it cannot be read.
        """
        with np.load(self.directory / name) as file:
            return Arrays(dict(file.items()), self.read.setdefault(name, set()))

    def flat(self, name: str) -> dict[str, np.ndarray]:
        """A file of parameters or optimiser state by flanjax's unscanned names.

        The scanned network of T5X holds all layers in one array; here each layer
        stands alone.
        """
        arrays = dict(self.arrays(name))
        if name.startswith("scalable_"):
            return self._unscanned(arrays)
        # T5X's decoder-only network has the embedding inside its decoder.
        inside = "decoder/token_embedder/"
        return {key.replace(inside, inside[8:]): value for key, value in arrays.items()}

    def params(self, name: str) -> dict[str, Any]:
        """Parameters with their layers stacked, as scanned models have them."""
        return stack_layers(unflatten(self.flat(name)))

    def encoder_decoder(self, **changes: Any) -> Any:
        """The recorded encoder-decoder model."""
        sizes = self.meta["config"]
        config = T5Config(
            vocab_size=sizes["vocab"],
            emb_dim=sizes["emb"],
            num_heads=sizes["heads"],
            head_dim=sizes["hd"],
            mlp_dim=sizes["mlp"],
            num_encoder_layers=self._layers["encoder"],
            num_decoder_layers=self._layers["decoder"],
            mlp_activations=sizes["act"],
            logits_via_embedding=sizes["via_emb"],
        )
        return build_model(dataclasses.replace(config, **changes))

    def decoder_only(self, prefix_lm: bool) -> Any:
        """The recorded decoder-only model: T5's layers, tied and scaled output."""
        sizes = self.meta["config"]
        names = " ".join(self.meta["arrays"]["deconly_params.npz"])
        config = DecoderConfig(
            vocab_size=sizes["vocab"],
            emb_dim=sizes["emb"],
            num_heads=sizes["heads"],
            num_kv_heads=sizes["heads"],
            head_dim=sizes["hd"],
            mlp_dim=sizes["mlp"],
            num_layers=len(set(re.findall(r"layers_\d+", names))),
            mlp_activations=sizes["act"],
            norm_epsilon=1e-6,
            logits_via_embedding=True,
            positions="relative",
            scale_attention=False,
            scale_tied_logits=True,
            prefix_lm=prefix_lm,
        )
        return build_model(config)

    def axes(self, name: str) -> dict[str, tuple[str, ...]]:
        """Recorded logical axes of parameters: `param_axes`, `scalable_param_axes`."""
        recorded = self.meta[name]
        return {key: tuple(re.findall(r"'(\w+)'", recorded[key])) for key in recorded}

    def unread(self) -> list[str]:
        """Names "file" and "file: array" of what is there and was not taken out."""
        present = {path.name for path in self.directory.glob("*.npz")}
        left = sorted(present - self.meta["arrays"].keys() - self.read.keys())
        for name, listed in self.meta["arrays"].items():
            if name not in self.read:
                left.append(name)
                continue
            missing = [array for array in listed if array not in self.read[name]]
            left.extend(f"{name}: {array}" for array in missing)
        return left

    @property
    def _layers(self) -> dict[str, int]:
        sizes = self.meta["config"]
        return {"encoder": sizes["enc"], "decoder": sizes["dec"]}

    def _unscanned(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        flat = {}
        for name, value in arrays.items():
            path, _, slot = name.rpartition("/")
            path, slot = (path, slot) if slot in SLOTS else (name, "v")
            stack, inner, *rest = name.split("/")
            if stack != inner:
                flat[name] = value
                continue
            for i in range(self._layers[stack]):
                layer = "/".join([stack, f"layers_{i}", *rest])
                flat[layer] = take_layer(path, slot, value, i)
        return flat
