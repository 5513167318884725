"""Which implementation of attention runs where, and why not another.

    choice = chosen_attention("auto", Site(platform="tpu", dtype="bfloat16", ...))
    choice.name, choice.why         # "splash", ""

"auto" takes the kernel of the platform where one can do what is asked, and else what
every platform can do; a name that cannot is an error that says why.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.struct
import jax

from flanjax.errors import ConfigError

LANES = 128  # Lengths of rows that TPU kernels take are multiples of it.

# From here on probabilities are not kept on CPUs: a layer's would be 4 times a GB for
# 16 heads and 16 rows.
LONG = 2048

BLOCK_KEYS = 512  # Of blockwise attention, at most.

IMPLEMENTATIONS = ("auto", "xla", "blockwise", "flash", "splash", "cudnn")


@flax.struct.dataclass
class Packing:
    """Which keys a query may see, said so that a kernel can leave out blocks.

    Attributes:
      query_segments: int [batch, q]; 0 is padding.
      key_segments: int [batch, k].
      order: "any"; "causal": no later key; "prefix": as the mask alone says.
      window: how many keys back a query sees, itself included; None is all.
    """

    query_segments: jax.Array
    key_segments: jax.Array
    order: str = flax.struct.field(pytree_node=False, default="any")
    window: int | None = flax.struct.field(pytree_node=False, default=None)


@dataclasses.dataclass(frozen=True)
class Site:
    """One place of a model where attention is computed.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      dtype: of queries, keys and values.
      queries: positions of a row of queries.
      keys: positions of a row of keys.
      head_dim: width of a head.
      order: as in `Packing`.
      window: as in `Packing`.
      bias: there is a relative-position bias.
      dropout: of probabilities.
    """

    platform: str
    dtype: str
    queries: int
    keys: int
    head_dim: int
    order: str = "any"
    window: int | None = None
    bias: bool = False
    dropout: bool = False


class Choice(NamedTuple):
    """An implementation's name, and why "auto" took none of the faster ones."""

    name: str
    why: str


def chosen_attention(wanted: str, site: Site) -> Choice:
    """Returns what computes attention at a site.

    Args:
      wanted: one of IMPLEMENTATIONS.
      site: where.

    Raises:
      ConfigError: the implementation that was asked for cannot do it.
    """
    if wanted != "auto":
        problem = _problem(wanted, site)
        if problem:
            raise ConfigError(
                f"attention '{wanted}' cannot be used: {problem}",
                where="T5Config.attention or DecoderConfig.attention",
                fix="set it to 'auto', which takes what there is",
            )
        return Choice(wanted, "")
    faster = {"tpu": ("splash", "flash"), "gpu": ("cudnn",)}.get(site.platform, ())
    if site.platform == "cpu" and site.keys >= LONG:
        faster = ("blockwise",)
    problems = {name: _problem(name, site) for name in faster}
    if site.platform == "gpu" and site.bias:
        problems["cudnn"] = "a bias would be written out for every row"
    for name, problem in problems.items():
        if not problem:
            return Choice(name, "")
    return Choice("xla", "; ".join(f"{name}: {why}" for name, why in problems.items()))


def attention_of(
    config: Any,
    platform: str,
    *,
    decoder_length: int,
    encoder_length: int = 0,
) -> dict[str, Choice]:
    """What computes each attention of a model in training, before anything is compiled.

    Args:
      config: a T5Config or a DecoderConfig.
      platform: "cpu", "gpu" or "tpu".
      decoder_length: positions of a decoder row.
      encoder_length: positions of an encoder row; 0 for decoder-only models.

    Raises:
      ConfigError: the implementation that the configuration asks for cannot do it.
    """
    relative = getattr(config, "positions", "relative") == "relative"
    site = functools.partial(
        Site,
        platform,
        config.dtype,
        head_dim=config.head_dim,
        dropout=config.dropout_rate > 0,
    )
    inputs, targets = encoder_length, decoder_length
    sites = {"decoder": site(targets, targets, order="causal", bias=relative)}
    if inputs:
        sites["encoder"] = site(inputs, inputs, bias=True)
        sites["encoder to decoder"] = site(targets, inputs)
    else:
        sites["decoder"] = dataclasses.replace(
            sites["decoder"],
            order="prefix" if config.prefix_lm else "causal",
            window=config.sliding_window,
        )
    return {
        place: chosen_attention(config.attention, site) for place, site in sites.items()
    }


def attention_lines(config: Any, platform: str, **lengths: int) -> list[str]:
    """What `attention_of` finds, for people, where that is not simply "xla"."""
    return [
        f"attention of the {place}: {name}" + (f" ({why})" if why else "")
        for place, (name, why) in attention_of(config, platform, **lengths).items()
        if name != "xla" or why
    ]


def _problem(name: str, site: Site) -> str:
    """Why an implementation cannot do what a site asks for; empty if it can."""
    home = {"flash": "tpu", "splash": "tpu", "cudnn": "gpu"}.get(name)
    if name == "xla":
        return ""
    if home and site.platform != home:
        return f"it is for {home.upper()}s, this is a {site.platform.upper()}"
    if site.dropout:
        return "it has no dropout of attention"
    if name == "blockwise":
        if keys_in_a_block(site.keys) < min(site.keys, BLOCK_KEYS // 8):
            return f"{site.keys} keys do not divide into blocks"
        return ""
    if name == "cudnn":
        if site.dtype not in ("bfloat16", "float16"):
            return f"it takes bfloat16, not {site.dtype}"
        wide = site.head_dim % 8 or site.head_dim > 128
        return f"it takes no heads of {site.head_dim}" if wide else ""
    if site.dtype not in ("bfloat16", "float32"):
        return f"it takes bfloat16 or float32, not {site.dtype}"
    if site.queries % LANES or site.keys % LANES:
        rows = f"{site.queries} queries and {site.keys} keys"
        return f"rows of {rows} are no multiples of {LANES}"
    if site.order == "prefix":
        return "it has no prefix language model"
    if name == "flash":
        return "it has no sliding window" if site.window else ""
    if site.bias:
        return "it has no bias"
    return "" if site.order == "causal" else "it is for causal self-attention"


def keys_in_a_block(keys: int) -> int:
    """The largest divisor of the number of keys that is at most BLOCK_KEYS."""
    return max(n for n in range(1, min(keys, BLOCK_KEYS) + 1) if keys % n == 0)


def platform(mesh: jax.sharding.Mesh | None = None) -> str:
    """The platform of a mesh, or that what is being traced will run on."""
    if mesh is not None:
        found = mesh.devices.flat[0].platform
    else:
        device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
        found = getattr(device, "platform", None) or jax.default_backend()
    return "gpu" if found in ("cuda", "rocm") else found
