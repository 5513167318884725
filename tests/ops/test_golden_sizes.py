"""Recordings of other sizes, with nothing in them: every array finds its comparison."""

import json

import jax
import numpy as np
import pytest

from flanjax.convert.t5x_layout import SLOTS, join_layers
from flanjax.convert.t5x_write import save_t5x
from flanjax.models.build import abstract_params
from flanjax.models.layers import unstack_layers
from flanjax.ops.golden_files import Golden
from flanjax.ops.verify_golden import verify_golden
from flanjax.train.optim import OptimizerConfig, make_optimizer
from flanjax.train.trees import flatten

SIZES = {
    "vocab": 40,
    "emb": 12,
    "heads": 3,
    "hd": 5,
    "mlp": 20,
    "enc": 1,
    "dec": 3,
    "lr": 0.002,
    "act": ["relu", "linear"],
    "via_emb": True,
}
ROWS, INPUTS, TARGETS, STEPS, TEXT = 4, 7, 6, 2, 5
RUN = ("loss", "z_loss", "lr", "weight_sum", "accuracy")
RNG = np.random.default_rng(0)


class Writer:
    """Writes files of zeros and random parameters as T5X names and shapes them."""

    def __init__(self, directory):
        self.directory, self.arrays = directory, {"deconly_params.npz": ["layers_0"]}
        self.meta = {
            "config": SIZES,
            "arrays": self.arrays,
            "lr_schedules": {"constant": {"factors": "constant"}},
            "checkpoint_float32": {"step": 20},
            "checkpoint_bfloat16": {"step": 20},
        }
        self.golden = Golden(directory, self.meta)

    def file(self, name, arrays):
        np.savez(self.directory / f"{name}.npz", **arrays)
        self.arrays[f"{name}.npz"] = list(arrays)

    def params(self, name, model, settings=None):
        """Parameters and, with an optimiser's settings, its state; T5X's names."""
        shapes, axes = abstract_params(model)
        draw = lambda s: RNG.normal(0, 0.2, s.shape).astype(np.float32)  # noqa: E731
        params = jax.tree.map(draw, shapes)
        self.file(name, self._named(model, params, "v"))
        if settings is None:
            return params, None
        state = make_optimizer(OptimizerConfig(**settings), axes).init(params)
        slots = {}
        for slot in SLOTS:
            named = self._named(model, getattr(state, slot), slot)
            slots |= {f"{path}/{slot}": value for path, value in named.items()}
        self.file(name.replace("_params", "_opt_state"), slots)
        return params, state

    def _named(self, model, tree, slot):
        if model.kind == "decoder":
            flat = flatten(unstack_layers(tree))
            return {
                f"decoder/{k}" if k.startswith("token_embedder") else k: v
                for k, v in flat.items()
            }
        if not model.config.relpos_per_layer:
            return flatten(unstack_layers(tree))
        named = {}
        for path, value in flatten(tree).items():
            stack, _, rest = path.partition("/layers/")
            name = f"{stack}/{stack}/{rest}" if rest else path
            if rest:
                used = value.shape[1:] != (1,)
                value = join_layers(name, slot, np.asarray(value), SIZES["hd"], used)
            named[name] = value
        return named

    def finish(self):
        self.meta["num_params"] = 0
        axes = flatten(
            abstract_params(self.golden.encoder_decoder(scan_layers=False))[1]
        )
        self.meta["param_axes"] = {k: f"P{names!r}" for k, names in axes.items()}
        (self.directory / "meta.json").write_text(json.dumps(self.meta))


def _batch(steps=(), encoder=True):
    tokens = lambda n: RNG.integers(2, SIZES["vocab"], (*steps, ROWS, n))  # noqa: E731
    features = {
        "decoder_input_tokens": tokens(TARGETS),
        "decoder_target_tokens": tokens(TARGETS),
    }
    ones = np.ones((*steps, ROWS, TARGETS), np.int32)
    features |= dict.fromkeys(("decoder_segment_ids", "decoder_loss_weights"), ones)
    features["decoder_positions"] = ones * np.arange(TARGETS)
    if not encoder:
        return features | {"decoder_causal_attention": np.eye(1, TARGETS) + 0 * ones}
    ones = np.ones((*steps, ROWS, INPUTS), np.int32)
    return features | {
        "encoder_input_tokens": tokens(INPUTS),
        "encoder_segment_ids": ones,
        "encoder_positions": ones * np.arange(INPUTS),
    }


def _write(directory):
    out = Writer(directory)
    golden, run = out.golden, dict.fromkeys(RUN, np.ones(STEPS))
    model = golden.encoder_decoder()
    logits = np.zeros((ROWS, TARGETS, SIZES["vocab"]))
    out.file("batch", _batch())
    out.file("train_batches", _batch((STEPS,)))
    out.file("deconly_batch", _batch(encoder=False))
    out.file("deconly_train_batches", _batch((STEPS,), encoder=False))
    out.params("params", model)
    out.params("grads", model)
    out.params("grads_ls0.2_num_total", model)
    out.params("decode_params", model)
    old = {"mlp_activations": ("relu",), "logits_via_embedding": True}
    out.params("t5_1_0_params", golden.encoder_decoder(**old))
    scanned = golden.encoder_decoder(relpos_per_layer=True)
    out.params("scalable_params", scanned)
    runs = {
        "traj": (model, {}),
        "traj_factored8": (model, {"min_dim_size_to_factor": 8}),
        "traj_momentum_wd": (model, {"beta1": 0.9}),
        "scalable_traj": (scanned, {"factor_by_axes": True}),
    }
    for name in ("traj_microbatch4", "traj_noparamscale"):
        out.file(name, run)
    out.params("traj_noparamscale_final_params", model)
    for name, (network, settings) in runs.items():
        out.file(name, run | {"lr": np.array([0.0, 0.002])})
        final = out.params(f"{name}_final_params", network, settings)
        if name == "traj":
            for dtype in ("float32", "bfloat16"):
                where = directory / f"t5x_checkpoint_{dtype}"
                save_t5x(
                    where,
                    model.config,
                    final[0],
                    step=20,
                    optimizer=final[1],
                    dtype=dtype,
                )
    out.file("forward", _forward(logits))
    for name in ("t5_1_0", "scalable"):
        out.file(f"{name}_forward", {"logits": logits, "loss": np.ones(())})
    _write_decoder(out, run, logits)
    _write_decoding(out)
    steps = np.arange(9)
    out.file("lr_schedules", {"steps": steps, "constant": steps})
    distances = np.arange(-50, 51)
    names = ("relative_position", "bidirectional", "causal")
    out.file("relpos_buckets", dict.fromkeys(names, distances))
    out.finish()


def _forward(logits):
    one, names = np.ones(()), ("loss/ls0.3/const7", "z_loss/ls0.3/const7")
    return dict.fromkeys(names, one) | {
        "loss/custom_weights/avg_per_seq": one,
        "loss/ls0.0/noz": one,
        "custom_loss_weights": np.ones((ROWS, TARGETS)),
        "encoder_output": np.zeros((ROWS, INPUTS, SIZES["emb"])),
        "score_batch": np.zeros(ROWS),
        "loss_unpacked_view": one,
        "logits": logits,
        "logits_unpacked_view": logits,
        "logits_bf16_activations": logits,
    }


def _write_decoder(out, run, logits):
    names = ("loss", "loss_ls02_num_total")
    for kind in ("causal", "prefixlm"):
        model = out.golden.decoder_only(prefix_lm=kind == "prefixlm")
        forward = dict.fromkeys(names, np.ones(())) | {"score_batch": np.zeros(ROWS)}
        out.file(f"deconly_{kind}_forward", forward | {"logits": logits})
        out.file(f"deconly_{kind}_traj", run)
        out.params(f"deconly_{kind}_traj_final_params", model, {})
    out.params("deconly_decode_params", model)
    out.params("deconly_params", model)
    batch = {f"batch/{k}": v[:3] for k, v in _batch(encoder=False).items()}
    batch["batch/decoder_causal_attention"] = np.tril(np.ones((3, TARGETS), int))
    out.file(
        "deconly_decode",
        batch | {"tokens": np.zeros((3, TARGETS)), "scores": np.zeros(3)},
    )


def _write_decoding(out):
    inputs = RNG.integers(2, SIZES["vocab"], (2, INPUTS))
    text = np.zeros((2, TEXT), int)
    arrays = {
        "encoder_input_tokens_unpadded": inputs,
        "encoder_input_tokens_padded": inputs * (np.arange(INPUTS) < 3),
        "max_decode_len": np.array(TEXT),
        "score_batch/targets": text + 3,
        "score_batch/scores": np.zeros(2),
        "greedy_prompt/padded/decoder_input_tokens": text,
    }
    for kind in ("greedy/padded", "greedy_prompt/padded"):
        arrays |= {f"{kind}/tokens": text, f"{kind}/scores": np.zeros(2)}
    for width, kind in ((3, "beam3_alpha0.8/unpadded"), (5, "beam5_alpha1.25/padded")):
        shape = (2, width)
        arrays[f"{kind}/tokens"] = np.zeros((*shape, TEXT))
        arrays[f"{kind}/scores"] = np.zeros(shape)
    out.file("decode", arrays)


@pytest.mark.slow
def test_recordings_of_any_size_are_compared_in_full(tmp_path):
    _write(tmp_path)
    rows = verify_golden(tmp_path)
    assert [row.check for row in rows if row.max_error is None and not row.ok] == []
    assert len(rows) >= 100
