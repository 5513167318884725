"""A run's model as a Hugging Face directory, adapters merged.

export_run(config, Path("runs/quickstart/export"))
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flanjax.config import RunConfig
from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import load_params
from flanjax.convert.weights import import_context_length, open_weights
from flanjax.data.vocabulary import load_vocabulary
from flanjax.models.build import abstract_params, build_model, init_params
from flanjax.models.layers import stack_layers
from flanjax.models.lora import LoraConfig, is_lora, merge_lora
from flanjax.train.checkpoint import Checkpointer
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import make_optimizer
from flanjax.train.state import abstract_state, merge_params, split_params


def export_run(
    config: RunConfig, output: str | os.PathLike[str], step: int | None = None
) -> str:
    """Writes the model of a run.

    Args:
      config: the run's configuration.
      output: directory to write.
      step: which checkpoint; the newest by default.

    Returns:
      One line: which checkpoint it is.

    Raises:
      CheckpointError: there is no usable checkpoint.
    """
    model = build_model(config.model)
    mesh = make_mesh(MeshConfig(data=-1))
    lora = config.model.lora.rank > 0
    optimizer = make_optimizer(config.optimizer, abstract_params(model)[1])
    abstract = abstract_state(model, optimizer, mesh, is_lora if lora else None)
    directory = Path(config.model_dir)
    checkpointer = Checkpointer(directory / "checkpoints", config.checkpoint)
    state, _, message = checkpointer.restore(abstract.replace(frozen={}), step)
    params = state.params
    if lora:
        frozen = _base_params(config)
        params = merge_lora(merge_params(params, frozen), config.model)
    model_config = dataclasses.replace(config.model, lora=LoraConfig())
    if not model_config.scan_layers:
        params = stack_layers(params)
    vocabulary = load_vocabulary(config.prepare.vocabulary)
    params = jax.tree.map(np.asarray, params)
    source = config.initial_checkpoint
    save_huggingface(
        output,
        model_config,
        params,
        vocabulary,
        run_dir=directory,
        context_length=import_context_length(source) if source else None,
    )
    return message


def _base_params(config: RunConfig) -> Any:
    """What the adapters were trained on top of, which checkpoints do not hold."""
    if config.initial_checkpoint:
        with open_weights(config.initial_checkpoint, config.model) as source:
            return load_params(source, stacked=config.model.scan_layers)
    init_key, _ = jax.random.split(jax.random.PRNGKey(config.seed))
    params, _ = init_params(build_model(config.model), init_key)
    return split_params(params, is_lora)[1]
