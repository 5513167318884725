"""What the tests against transformers and peft share; torch is imported here alone."""

import os
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flanjax.decode.sample import greedy
from flanjax.models.build import build_model

# Nothing is asked of a hub, whose absence would cost minutes of waiting.
os.environ["HF_HUB_OFFLINE"] = "1"

EOS = 1
NEW_TOKENS = 8
# Longer than the shortest window; the second row of inputs is padded.
INPUTS = np.random.default_rng(1).integers(2, 64, (2, 12))
INPUTS[1, 9:] = 0
TARGETS = np.random.default_rng(2).integers(2, 64, (2, 10))


def imported(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            name, reason=f"{name} is not installed: see launch/test_hf.sh"
        )


@pytest.fixture(scope="session")
def torch():
    return imported("torch")


@pytest.fixture(scope="session")
def transformers(torch):
    return imported("transformers")


@pytest.fixture(scope="session")
def peft(transformers):
    return imported("peft")


@pytest.fixture
def load(transformers):
    """A directory's model, as transformers reads it."""

    def load(directory: Path):
        facts = transformers.AutoConfig.from_pretrained(directory)
        kind = "Seq2SeqLM" if facts.is_encoder_decoder else "CausalLM"
        auto = getattr(transformers, f"AutoModelFor{kind}")
        model, report = auto.from_pretrained(
            directory, dtype="float32", output_loading_info=True
        )
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not report[problem], problem
        return model.eval()

    return load


@pytest.fixture
def their_numbers(torch):
    """(transformers model) -> (logits of TARGETS, greedy tokens after the prompt)."""

    def numbers(model):
        settings = {
            "do_sample": False,
            "max_new_tokens": NEW_TOKENS,
            "eos_token_id": EOS,
            "pad_token_id": 0,
        }
        targets = torch.tensor(TARGETS)
        with torch.no_grad():
            if model.config.is_encoder_decoder:
                inputs = torch.tensor(INPUTS)
                given = {"input_ids": inputs, "attention_mask": (inputs > 0).long()}
                logits = model(**given, decoder_input_ids=targets).logits
                tokens = model.generate(**given, **settings)[:, 1:]
            else:
                logits = model(input_ids=targets).logits
                ones = torch.ones_like(targets)
                tokens = model.generate(targets, attention_mask=ones, **settings)
                tokens = tokens[:, targets.shape[1] :]
        tokens = tokens.numpy()
        return logits.numpy(), np.pad(tokens, ((0, 0), (0, NEW_TOKENS)))[:, :NEW_TOKENS]

    return numbers


@pytest.fixture(scope="session")
def our_numbers():
    """The same of flanjax: (configuration, parameters) -> (logits, tokens)."""

    def numbers(config, params):
        model = build_model(config)
        batch = {"decoder_input_tokens": jnp.asarray(TARGETS)}
        batch["decoder_target_tokens"] = batch["decoder_input_tokens"]
        prompts = {
            "decoder_input_tokens": jnp.asarray(TARGETS),
            "lengths": jnp.full(len(TARGETS), TARGETS.shape[1]),
        }
        if model.kind == "encoder_decoder":
            prompts = {"encoder_input_tokens": jnp.asarray(INPUTS)}
            batch |= prompts
        logits = jax.jit(model.apply)({"params": params}, batch)
        tokens, _ = greedy(model, params, prompts, NEW_TOKENS, EOS)
        return np.asarray(logits), np.asarray(tokens)

    return numbers


@pytest.fixture(scope="session")
def assert_equal_numbers():
    """Logits within 1e-4 of the largest's size, and the same greedy tokens."""

    def compare(ours, theirs):
        scale = max(1.0, np.abs(theirs[0]).max())
        np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-4 * scale)
        np.testing.assert_array_equal(ours[1], theirs[1])

    return compare
