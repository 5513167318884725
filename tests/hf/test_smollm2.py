"""The fetched SmolLM2, rewritten for transformers: its tokenizer and its text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.cli import main
from flanjax.convert.place import load_params
from flanjax.convert.weights import open_weights
from flanjax.data.fetch import fetched_path
from flanjax.data.vocabulary import load_vocabulary
from flanjax.decode.sample import greedy
from flanjax.errors import DataError
from flanjax.models.build import build_model

pytestmark = [pytest.mark.hf, pytest.mark.slow]

PROMPT = "The capital of France is"
NEW_TOKENS = 6


def test_the_exported_model_says_in_transformers_what_it_says_here(
    transformers, load, torch, tmp_path
):
    try:
        source = f"gguf:{fetched_path('smollm2')}"
    except DataError as error:
        pytest.skip(str(error))
    assert main(["convert", "import", source, str(tmp_path / "model")]) == 0
    vocabulary = load_vocabulary(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer(PROMPT)["input_ids"]
    assert ids == list(vocabulary.encode(PROMPT))
    with open_weights(source) as weights:
        model, params = build_model(weights.config), load_params(weights)
    theirs, tokens = load(tmp_path / "model"), torch.tensor([ids])
    with torch.no_grad():
        expected = theirs(tokens).logits.numpy()
        settings = {"do_sample": False, "max_new_tokens": NEW_TOKENS}
        text = theirs.generate(tokens, **settings)[0, len(ids) :].numpy()
    batch = {"decoder_input_tokens": jnp.asarray([ids])}
    logits = jax.jit(model.apply)({"params": params}, batch)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * scale)
    prompts = batch | {"lengths": jnp.array([len(ids)])}
    chosen, _ = greedy(model, params, prompts, NEW_TOKENS, vocabulary.eos_id)
    np.testing.assert_array_equal(chosen[0, : len(text)], text)
    assert "Paris" in tokenizer.decode(text)
