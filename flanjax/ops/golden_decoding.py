"""Parity with T5X in decoding: greedy, forced prompts, beams, scores, decoder-only.

    rows = list(encoder_decoder(Golden.open(directory)))

What was recorded is told from the names of the arrays.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flanjax.decode.beam import beam_search
from flanjax.decode.sample import greedy
from flanjax.decode.score import score_batch
from flanjax.ops.compare import Row, compare
from flanjax.ops.golden_files import EOS_ID, Golden
from flanjax.ops.golden_forward import SCORE


def encoder_decoder(golden: Golden) -> Iterator[Row]:
    """Greedy and beam search on full and on padded inputs, some from given tokens."""
    expected = golden.arrays("decode.npz")
    model, params = golden.encoder_decoder(), golden.params("decode_params.npz")
    length = int(expected["max_decode_len"])
    for array in expected:
        name, _, result = array.rpartition("/")
        kind, _, rows = name.partition("/")
        beams = re.fullmatch(r"beam(\d+)_alpha([\d.]+)", kind)
        if result != "tokens" or not (beams or kind in ("greedy", "greedy_prompt")):
            continue
        inputs = expected[f"encoder_input_tokens_{rows}"]
        prompts = {"encoder_input_tokens": jnp.asarray(inputs)}
        if beams:
            width, alpha = int(beams[1]), float(beams[2])
            tokens, scores = beam_search(
                model,
                params,
                prompts,
                length,
                EOS_ID,
                num_decodes=width,
                alpha=alpha,
            )
        else:
            forced = None
            if f"{name}/decoder_input_tokens" in expected:
                forced = _targets(expected[f"{name}/decoder_input_tokens"])
            tokens, scores = greedy(
                model, params, prompts, length, EOS_ID, forced=forced
            )
        yield compare(f"{name} tokens", tokens, expected[array])
        yield compare(f"{name} scores", scores, expected[f"{name}/scores"], **SCORE)
    yield _scores_of_greedy(expected, model, params)


def _targets(inputs: np.ndarray) -> jax.Array:
    """Recorded decoder inputs are one behind the targets."""
    return jnp.pad(inputs[:, 1:], ((0, 0), (0, 1)))


def _scores_of_greedy(
    expected: Mapping[str, np.ndarray], model: Any, params: Any
) -> Row:
    targets = expected["score_batch/targets"]
    batch: dict[str, Any] = {
        "encoder_input_tokens": expected["encoder_input_tokens_padded"],
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
    }
    scores = score_batch(model, params, batch)
    want = expected["score_batch/scores"]
    return compare("scores of given targets", scores, want, **SCORE)


def decoder_only(golden: Golden) -> Iterator[Row]:
    """Greedy decoding of a prefix language model, prompts of several lengths."""
    expected = golden.arrays("deconly_decode.npz")
    params = golden.params("deconly_decode_params.npz")
    batch = expected.below("batch/")
    # The start token and the prompt: all that sees itself in both directions.
    lengths = np.sum(batch["decoder_causal_attention"], axis=1)
    prompts: dict[str, Any] = {
        "decoder_input_tokens": batch["decoder_input_tokens"][:, : lengths.max()],
        "lengths": lengths,
    }
    width = batch["decoder_input_tokens"].shape[1]
    # A row's text ends with the room for it: one token for each slot after the prompt.
    room = width - lengths + 1
    tokens, scores = greedy(
        golden.decoder_only(prefix_lm=True),
        params,
        prompts,
        int(room.max()),
        EOS_ID,
        limits=room,
    )
    tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))
    yield compare("decoder-only tokens", tokens, expected["tokens"])
    yield compare("decoder-only scores", scores, expected["scores"], **SCORE)
