"""Every family, written by flanjax and read by transformers, and the other way."""

import pytest

from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.place import load_params
from flanjax.convert.weights import open_weights

pytestmark = pytest.mark.hf


def test_transformers_reads_what_flanjax_wrote(
    family, load, our_numbers, their_numbers, assert_equal_numbers, tmp_path
):
    directory = save_huggingface(tmp_path / "model", family.config, family.params)
    ours = our_numbers(family.config, family.params)
    assert_equal_numbers(ours, their_numbers(load(directory)))


def test_flanjax_reads_what_transformers_wrote(
    family, torch, load, our_numbers, their_numbers, assert_equal_numbers, tmp_path
):
    """Other weights, in its own files, several of them."""
    theirs = load(save_huggingface(tmp_path / "a", family.config, family.params))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            value.copy_(torch.randn_like(value) * 0.3 + ("norm" in name))
    theirs.save_pretrained(tmp_path / "b", max_shard_size="40KB")
    assert len(list((tmp_path / "b").glob("model-*.safetensors"))) > 1
    with open_weights(str(tmp_path / "b")) as source:
        assert source.config == family.config
        ours = our_numbers(source.config, load_params(source))
    assert_equal_numbers(ours, their_numbers(theirs))
