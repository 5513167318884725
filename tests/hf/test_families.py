"""Every family, written by flanjax and read by transformers, and the other way round."""

import json

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
