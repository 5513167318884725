"""Run configuration, and the only file that touches gin.

A configuration is frozen dataclasses; each lives beside the code that reads it and
`RunConfig` composes them. gin files set their fields by class name, T5X-style macros
are what a user changes:

    include "gin/recipes/tiny.gin"
    TRAIN_STEPS = 200
    OptimizerConfig.name = "adamw"

On the command line: `--gin_file=...` (repeatable, later wins), `--gin.TRAIN_STEPS=200`
and `--gin_search_paths=...`. A key nobody reads is an error that offers the nearest
name. gin files are configuration, but a gin `import` statement runs code: treat files
of strangers accordingly.
"""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flanjax.convert.restore import RestoreConfig
from flanjax.data.store import PrepareConfig
from flanjax.errors import ConfigError, nearest
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig
from flanjax.models.loss import LossConfig
from flanjax.models.rotary import RopeScaling
from flanjax.models.t5 import T5Config
from flanjax.train.checkpoint import CheckpointConfig
from flanjax.train.mesh import MeshConfig
from flanjax.train.monitor import MonitorConfig
from flanjax.train.optim import OptimizerConfig
from flanjax.train.schedules import ScheduleConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """How prepared examples become batches.

    Attributes:
      feature_lengths: token limits {"inputs": n, "targets": m}; a decoder-only row
        holds n + m tokens, as SeqIO's PrefixLM converter does.
      batch_size: packed rows in one global batch.
      block_examples: examples per planned block; a larger block packs tighter.
      packing: several examples per row, or one.
      wrapping: "plain" or "chat" (the vocabulary's chat template).
      system_prompt: system message of the chat wrapping; None for the template's own.
      max_truncated: share of a task's examples that may lose tokens to the limits
        before training is refused.
      allow_failed_check: train although `flanjax data check` found something.
    """

    feature_lengths: dict[str, int]
    batch_size: int
    block_examples: int = 8192
    packing: bool = True
    wrapping: str = "plain"
    system_prompt: str | None = None
    max_truncated: float = 0.05
    allow_failed_check: bool = False


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How evaluations run; which ones, PrepareConfig.evals says.

    Attributes:
      batch_size: prompts decoded together.
      max_examples: of each evaluation at most; None takes all.
    """

    batch_size: int = 16
    max_examples: int | None = None


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything a training run is made of.

    Attributes:
      model_dir: the run directory; the same directory resumes the run.
      model: T5Config or DecoderConfig.
      prepare: which mixture, vocabulary and store.
      data: lengths, packing and batch size.
      optimizer, loss, mesh, checkpoint, eval, monitor: see their classes.
      train_steps: optimiser steps of this run (T5X counts pre-training too).
      initial_checkpoint: where weights come from: None (fresh), a Hugging Face
        directory, "t5x:DIRECTORY", "gguf:FILE", or "gguf:smollm2" (fetched).
      restore: which parameters, and whether the optimiser's state, come from there.
      freeze: parameters that are not trained: regular expressions for the ends of
        their paths, such as "encoder/.*" or "token_embedder/embedding".
      microbatches: parts a batch is split into to save memory; results do not change.
      seed: initialisation, dropout and data order.
      eval_period: evaluate before the first step and every so many steps.
      log_period: steps between progress lines and logged metrics.
      max_skipped_steps: non-finite steps in a row before the run stops (status 4).
      initial_eval: evaluate before the first step.
    """

    model_dir: str
    model: Any
    prepare: PrepareConfig
    data: DataConfig
    optimizer: OptimizerConfig
    loss: LossConfig
    mesh: MeshConfig
    checkpoint: CheckpointConfig
    eval: EvalConfig
    monitor: MonitorConfig
    train_steps: int
    initial_checkpoint: str | None = None
    restore: RestoreConfig = RestoreConfig()
    freeze: Sequence[str] = ()
    microbatches: int = 1
    seed: int = 0
    eval_period: int = 1000
    log_period: int = 1
    max_skipped_steps: int = 10
    initial_eval: bool = True

    def fingerprint(self) -> str:
        """Hash of what determines the result; places and monitoring are left out."""
        tree = dataclasses.asdict(self)
        del tree["model_dir"], tree["prepare"]["store_dir"], tree["monitor"]
        text = json.dumps(tree, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


CLASSES = (
    RunConfig,
    DataConfig,
    PrepareConfig,
    T5Config,
    DecoderConfig,
    RopeScaling,
    LoraConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    RestoreConfig,
    MeshConfig,
    CheckpointConfig,
    EvalConfig,
    MonitorConfig,
)


def load_config(
    gin_files: Sequence[str],
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    root: str = "RunConfig",
) -> tuple[Any, str]:
    """Reads gin files and bindings.

    Args:
      gin_files: parsed in order, later ones win.
      bindings: "NAME=value" strings of the command line; a value that is no Python
        literal, gin reference or macro is taken as a string.
      search_paths: folders in which gin files are looked up, before the current
        folder and the files that ship with flanjax.
      root: the class to build.

    Returns:
      The configuration and its gin text as resolved (defaults included), which
      parses to the same configuration.

    Raises:
      ConfigError: unknown file, key or class; a required macro left unset; a value
        that the class refuses. Names file and line where gin knows them.
    """
    import gin

    gin.clear_config(clear_constants=True)
    classes = {cls.__name__: _register(gin, cls) for cls in CLASSES}
    for path in (*search_paths, ".", str(Path(__file__).resolve().parent.parent)):
        gin.add_config_file_search_path(path)
    gin.add_config_file_search_path(str(Path(__file__).resolve().parent / "configs"))
    # gin logs every folder where a file is not, as an error, before it finds it.
    logging.disable(logging.ERROR)
    try:
        gin.parse_config_files_and_bindings(list(gin_files), [], finalize_config=False)
        # A macro of a file is no mistake when a flag sets what it stood for.
        replaced = _macros_read(gin)
        gin.parse_config([_literal(gin, b) for b in bindings])
    except (OSError, SyntaxError, ValueError, NameError, ImportError) as error:
        raise _explained(error, classes) from error
    finally:
        logging.disable(logging.NOTSET)
    _check_macros(gin, replaced)
    try:
        config = classes[root]()
        return config, gin.operative_config_str()
    except (TypeError, ValueError, NameError, RuntimeError) as error:
        raise _explained(error, classes) from error


def _register(gin: Any, cls: type) -> Any:
    try:
        return gin.external_configurable(cls, module="flanjax")
    except ValueError:  # Registered by an earlier call in this process.
        return gin.get_configurable(f"flanjax.{cls.__name__}")


def _literal(gin: Any, binding: str) -> str:
    """The binding, its value quoted when it is not a gin value already."""
    name, separator, value = binding.partition("=")
    if not separator:
        raise ConfigError(
            f"'--gin.{binding}' has no value", fix=f"write --gin.{binding}=VALUE"
        )
    if not value.startswith(("@", "%")):
        try:
            gin.config.parse_value(value)
        except (SyntaxError, ValueError):
            value = repr(value)
    return f"{name} = {value}"


def _macros_read(gin: Any) -> set[str]:
    """Names of the macros that something refers to."""
    return {
        "/".join(reference.scopes)
        for reference in gin.config.iterate_references(gin.config._CONFIG)
        if reference.selector == "gin.macro"
    }


def _check_macros(gin: Any, replaced: set[str]) -> None:
    """Refuses macros that nothing reads, and required ones left unset."""
    config = gin.config._CONFIG
    bound = {scope: v for (scope, sel), v in config.items() if sel == "gin.macro"}
    read = _macros_read(gin)
    for name in bound:
        if name not in read | replaced:
            raise ConfigError(
                f"nothing reads the gin macro '{name}'.{nearest(name, read)}",
                where=f"--gin.{name} or a gin file",
                fix=f"known macros: {', '.join(sorted(read))}",
            )
    missing = sorted(
        name
        for name in read
        if repr(bound.get(name, {"value": "%gin.REQUIRED"})["value"])
        in ("%gin.REQUIRED", "'%gin.REQUIRED'")
    )
    if missing:
        raise ConfigError(
            f"required and not set: {', '.join(missing)}",
            fix=" ".join(f"--gin.{name}=..." for name in missing),
        )


def _explained(error: Exception, classes: dict[str, Any]) -> ConfigError:
    """Turns a gin error into one message with the nearest known name."""
    text = str(error)
    located = re.search(r'In file "([^"]+)", line (\d+)', text)
    where = f"{located[1]}:{located[2]}" if located else None
    if where is None and re.search(r"In (bindings|string)", text):
        where = "--gin flag"
    first = re.split(r"\n\s*In ", text.strip())[0].strip()
    hint = ""
    if match := re.search(r"No configurable matching '([^']+)'", text):
        hint = nearest(match[1].split(".")[-1], classes)
    elif match := re.search(
        r"[Cc]onfigurable '([^']+)' .*parameter named '([^']+)'", text
    ):
        name = match[1].split(".")[-1]
        fields = [f.name for f in dataclasses.fields(_class(name))]
        first = f"{name} has no field '{match[2]}'"
        hint = nearest(match[2], fields)
        return ConfigError(
            first + "." + hint, where=where, fix=f"fields: {', '.join(fields)}"
        )
    return ConfigError(
        first + hint, where=where, fix="see the gin files in gin/ and `--help`"
    )


def _class(name: str) -> type:
    return next(cls for cls in CLASSES if cls.__name__ == name)
