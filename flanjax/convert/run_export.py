"""A run's model as a Hugging Face directory or T5X checkpoint, or its adapters alone.

export_run(config, Path("runs/quickstart/export"))
export_run(config, Path("runs/quickstart/t5x"), form="t5x", optimizer_state=True)
export_run(config, Path("runs/quickstart/adapter"), adapter=True)
"""

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np

from flanjax.config import RunConfig
from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.peft import save_adapter
from flanjax.convert.t5x_write import save_t5x
from flanjax.convert.weights import import_context_length
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.lora import LoraConfig, is_lora, merge_lora
from flanjax.train.checkpoint import Checkpointer
from flanjax.train.initial import check_report, initial_params
from flanjax.train.mesh import MeshConfig, make_mesh
from flanjax.train.optim import AdafactorState, make_optimizer
from flanjax.train.state import TrainState, abstract_state, merge_params, split_params
from flanjax.train.trainable import trainable


def export_run(
    config: RunConfig,
    output: str | os.PathLike[str],
    step: int | None = None,
    *,
    adapter: bool = False,
    form: str = "hf",
    dtype: str = "float32",
    optimizer_state: bool = False,
) -> str:
    """Writes the model of a run, or what LoRA added to it.

    Args:
      config: the run's configuration.
      output: directory to write.
      step: which checkpoint; the newest by default.
      adapter: write the adapters alone, as `peft` reads them; the base model is not
        read.
      form: of the whole model, "hf" (a Hugging Face directory) or "t5x".
      dtype: of the whole model's weights in the files, "float32" or "bfloat16".
      optimizer_state: write Adafactor's state too; of a T5X checkpoint.

    Returns:
      One line: which checkpoint it is.

    Raises:
      CheckpointError: there is no usable checkpoint.
      ConfigError: there is no such model in that form; adapters alone are wanted and
        there are none, or no base model to load them onto; or there is no state of
        Adafactor for all parameters.
    """
    model = build_model(config.model)
    mesh = make_mesh(MeshConfig(data=-1))
    trained = trainable(config)
    optimizer = make_optimizer(config.optimizer, abstract_params(model)[1])
    abstract = abstract_state(model, optimizer, mesh, trained)
    directory, source = Path(config.model_dir), config.initial_checkpoint
    if optimizer_state:
        _check_state(config, form, abstract)
    if adapter and source is None:
        raise ConfigError(
            "the base weights were drawn from the seed: there is no model that the "
            "adapters could be loaded onto",
            where="RunConfig.initial_checkpoint",
            fix="export the whole model (without --adapter)",
        )
    checkpointer = Checkpointer(directory / "checkpoints", config.checkpoint)
    state, _, message = checkpointer.restore(abstract.replace(frozen={}), step)
    # Those that were frozen by name are as they were at the start.
    wanted = split_params(abstract.frozen, is_lora)[0] if adapter else abstract.frozen
    if wanted:
        check_report(config)
    params = merge_params(state.params, initial_params(config, model, wanted))
    if adapter:
        base = source if source and Path(source).is_dir() else None
        params = jax.tree.map(np.asarray, params)
        save_adapter(output, config.model, params, base)
        return message
    params = merge_lora(params, config.model)
    model_config = dataclasses.replace(config.model, lora=LoraConfig())
    if form == "t5x":
        save_t5x(
            output,
            model_config,
            params,
            step=int(state.opt_state.count),
            optimizer=state.opt_state if optimizer_state else None,
            dtype=dtype,
        )
        return message
    save_huggingface(
        output,
        model_config,
        params,
        load_vocabulary(config.prepare.vocabulary),
        run_dir=directory,
        context_length=import_context_length(source) if source else None,
        dtype=dtype,
    )
    return message


def _check_state(config: RunConfig, form: str, abstract: TrainState) -> None:
    """Refuses to export an optimiser's state that T5X could not go on from."""
    reasons = {
        "a Hugging Face directory has no place for it": form != "t5x",
        f"T5X's is Adafactor's, this run has {config.optimizer.name}": (
            not isinstance(abstract.opt_state, AdafactorState)
        ),
        "some parameters were not trained and have none": bool(abstract.frozen),
    }
    for reason, applies in reasons.items():
        if applies:
            raise ConfigError(
                f"the optimiser's state cannot be exported: {reason}",
                fix="export without --optimizer_state",
            )
