"""What a run trains: the adapters if there are any, without what is frozen by name.

    trained = trainable(config)        # None: everything
    trained(("encoder", "layers", "mlp", "wo", "kernel"))

The rest has no gradient, no optimiser state and no bytes in checkpoints: it comes from
the initial weights again when a run goes on.
"""

from typing import Any

from flanjax.config import RunConfig
from flanjax.errors import ConfigError, nearest
from flanjax.models.build import abstract_params, build_model
from flanjax.models.lora import check_adapters, check_patterns, ends_in, is_lora
from flanjax.train.state import Trainable
from flanjax.train.trees import flatten


def trainable(config: RunConfig) -> Trainable | None:
    """Returns which parameters the run trains.

    Args:
      config: its `model.lora` (rank above 0: adapters alone are trained) and `freeze`
        (regular expressions; a parameter whose path ends in a match is not trained).

    Returns:
      A predicate on paths of names, or None when everything is trained.

    Raises:
      ConfigError: a LoRA target or a pattern of `freeze` matches nothing, or nothing
        is left to train.
    """
    lora = config.model.lora
    shapes: dict[str, Any] = abstract_params(build_model(config.model))[0]
    if lora.rank:
        check_adapters(lora, shapes)
    check_patterns(config.freeze, "RunConfig.freeze")
    paths = [tuple(name.split("/")) for name in flatten(shapes)]
    for pattern in config.freeze:
        if not any(ends_in(pattern, path) for path in paths):
            _refuse_unmatched(pattern, paths)
    if not lora.rank and not config.freeze:
        return None
    trained = frozenset(
        path
        for path in paths
        if (is_lora(path) or not lora.rank)
        and not any(ends_in(pattern, path) for pattern in config.freeze)
    )
    if not trained:
        raise ConfigError(
            "every parameter is frozen: there is nothing to train",
            where=f"RunConfig.freeze = {list(config.freeze)}",
            fix="freeze less; with LoRA adapters the other weights are frozen anyway",
        )
    return lambda path: tuple(path) in trained


def _refuse_unmatched(pattern: str, paths: list[tuple[str, ...]]) -> None:
    names = {"/".join(path[-n:]) for path in paths for n in (2, 3, len(path))}
    # "encoder/.*" and the like: what stands before the wildcard may be misspelt.
    names |= {"/".join(path[:n]) + "/.*" for path in paths for n in (1, 2, 3)}
    raise ConfigError(
        f"the pattern '{pattern}' matches no parameter.{nearest(pattern, names)}",
        where="RunConfig.freeze",
        fix="patterns are regular expressions for the ends of paths such as "
        f"{'/'.join(paths[-1])}",
    )
