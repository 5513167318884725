"""LoRA adapters as a directory that `peft` loads on top of the base model.

    save_adapter("adapter", config, params, base="base_model")

`adapter_config.json` and `adapter_model.safetensors`, as peft writes them: for each
layer and kernel A (rank, in) and B (out, rank), under the base model's module names.
Nothing of `peft` is imported.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from flanjax.convert.hf_config import config_facts
from flanjax.convert.names import Entry, huggingface_entries
from flanjax.errors import ConfigError
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import stack_layers
from flanjax.models.t5 import T5Config

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(
    directory: str | os.PathLike[str],
    config: T5Config | DecoderConfig,
    params: dict[str, Any],
    base: str | None = None,
) -> Path:
    """Writes the adapters of a model; complete or not there at all.

    Args:
      directory: is created, or replaced if it is an earlier adapter.
      config: the model's configuration, with its `lora`.
      params: nested parameters; only adapters are read, the rest may be absent.
      base: directory or name of the base model for `transformers`, where it has one.

    Returns:
      The directory.

    Raises:
      ConfigError: the model has no adapters or no Hugging Face counterpart, or the
        directory holds something else.
    """
    from safetensors.numpy import save_file

    directory = Path(directory)
    _check_replaceable(directory)
    config_facts(config)  # Refuses what transformers has no model for.
    if not config.scan_layers:
        params = stack_layers(params)
    entries = huggingface_entries(config)
    tensors = _tensors(entries, params)
    if not tensors:
        raise ConfigError(
            "the model has no adapters",
            where="LoraConfig.rank",
            fix="export the whole model instead (without --adapter)",
        )
    scratch = directory.parent / f".{directory.name}.writing"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    facts = _facts(config, _targets(entries, tensors), base)
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (scratch / CONFIG).write_text(text, encoding="utf-8")
    save_file(tensors, scratch / WEIGHTS, metadata={"format": "pt"})
    # It makes the file readable by its owner alone.
    (scratch / WEIGHTS).chmod((scratch / CONFIG).stat().st_mode)
    if directory.exists():
        shutil.rmtree(directory)
    scratch.replace(directory)
    return directory


def _tensors(entries: list[Entry], params: dict[str, Any]) -> dict[str, np.ndarray]:
    """A and B of every adapted module, by peft's names."""
    tensors = {}
    for entry in entries:
        module: Any = params
        for name in entry.path[:-1]:
            module = module.get(name, {})
        if entry.path[-1] != "kernel" or "lora_a" not in module:
            continue
        for ours, theirs in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
            array = np.asarray(module[ours], np.float32)
            rows = array if entry.stacked else array[None]
            for row, name in zip(rows, entry.names, strict=True):
                key = f"base_model.model.{_module(name)}.{theirs}.weight"
                tensors[key] = np.ascontiguousarray(row.T)
    return tensors


def _targets(entries: list[Entry], tensors: dict[str, np.ndarray]) -> list[str]:
    """What peft needs to find the adapted modules among all.

    It takes the ends of module names. The last parts ("q_proj") are what people write,
    and what other software expects; where they would match other modules too, the
    whole names are given.
    """
    prefix, suffix = "base_model.model.", ".lora_A.weight"
    adapted = {
        name.removeprefix(prefix).removesuffix(suffix)
        for name in tensors
        if name.endswith(suffix)
    }
    short = {name.rsplit(".", 1)[-1] for name in adapted}
    modules = (_module(name) for entry in entries for name in entry.names)
    matched = {name for name in modules if name.rsplit(".", 1)[-1] in short}
    return sorted(short if matched == adapted else adapted)


def _facts(
    config: T5Config | DecoderConfig, targets: list[str], base: str | None
) -> dict[str, Any]:
    """Returns adapter_config.json; what peft fills in by itself is left out."""
    lora = config.lora
    seq2seq = isinstance(config, T5Config)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _module(tensor: str) -> str:
    return tensor.removesuffix(".weight")


def _check_replaceable(directory: Path) -> None:
    """Refuses to replace a directory that is not an adapter."""
    if directory.exists():
        found = {path.name for path in directory.iterdir()}
        if found and not {CONFIG, WEIGHTS} <= found:
            raise ConfigError(
                "the directory to write holds something else",
                where=str(directory),
                fix="give a new directory",
            )
