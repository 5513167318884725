"""Layouts give SeqIO's features; reference values are those SeqIO documents."""

from types import SimpleNamespace

import numpy as np
import pytest

from flanjax.data.layout import Layout, make_layout
from flanjax.errors import ConfigError, DataError


def example(inputs, targets):
    return SimpleNamespace(inputs=np.array(inputs, int), targets=np.array(targets, int))


TWO = [example([7, 8, 5], [3, 9]), example([8, 4, 9, 3], [4])]


class Words:
    """A vocabulary of characters, with a chat template."""

    pad_id, eos_id, spec = 0, 1, "words"

    def encode(self, text, *, special=False):
        return [ord(character) for character in text]

    def render_chat(self, messages, add_generation_prompt):
        turns = "".join(f"<{m['role'][0]}>{m['content']}\n" for m in messages)
        return turns + ("<a>" if add_generation_prompt else "")


def lists(row):
    return {name: value.tolist() for name, value in row.items()}


def test_encoder_decoder_row_is_seqios():
    row = Layout("encoder_decoder", 10, 7).row(TWO)
    assert lists(row) == {
        "encoder_input_tokens": [7, 8, 5, 1, 8, 4, 9, 3, 1, 0],
        "encoder_segment_ids": [1, 1, 1, 1, 2, 2, 2, 2, 2, 0],
        "encoder_positions": [0, 1, 2, 3, 0, 1, 2, 3, 4, 0],
        "decoder_target_tokens": [3, 9, 1, 4, 1, 0, 0],
        "decoder_input_tokens": [0, 3, 9, 0, 4, 0, 0],
        "decoder_loss_weights": [1, 1, 1, 1, 1, 0, 0],
        "decoder_segment_ids": [1, 1, 1, 2, 2, 0, 0],
        "decoder_positions": [0, 1, 2, 0, 1, 0, 0],
    }
    assert all(value.dtype == np.int32 for value in row.values())


def test_decoder_row_with_a_start_token_is_seqios_prefix_lm():
    assert lists(Layout("decoder", 7, 8, start_id=0).row(TWO)) == {
        "decoder_target_tokens": [7, 8, 5, 1, 3, 9, 1, 8, 4, 9, 3, 1, 4, 1, 0],
        "decoder_input_tokens": [0, 7, 8, 5, 1, 3, 9, 0, 8, 4, 9, 3, 1, 4, 0],
        "decoder_loss_weights": [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0],
        "decoder_positions": [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0],
        "decoder_segment_ids": [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0],
        "decoder_causal_attention": [1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0],
    }


def test_decoder_row_without_a_start_token_drops_one_position_a_segment():
    layout = Layout(
        "decoder", 6, 4, pad_id=9, eos_id=2, start_id=None, prefix_ids=(50,),
        separator_ids=(60, 61), inputs_eos=False,
    )  # fmt: skip
    assert lists(layout.row([example([7], [3]), example([], [4])])) == {
        "decoder_input_tokens": [50, 7, 60, 61, 3, 50, 60, 61, 4, 9],
        "decoder_target_tokens": [7, 60, 61, 3, 2, 60, 61, 4, 2, 9],
        "decoder_loss_weights": [0, 0, 0, 1, 1, 0, 0, 1, 1, 0],
        "decoder_positions": [0, 1, 2, 3, 4, 0, 1, 2, 3, 0],
        "decoder_segment_ids": [1, 1, 1, 1, 1, 2, 2, 2, 2, 0],
        "decoder_causal_attention": [1, 1, 1, 1, 0, 1, 1, 1, 0, 0],
    }
    assert layout.prompt([7]).tolist() == [50, 7, 60, 61]


def test_long_examples_lose_their_tails_and_keep_eos():
    long = example(range(10, 30), range(40, 60))
    row = Layout("encoder_decoder", 5, 3).row([long])
    assert row["encoder_input_tokens"].tolist() == [10, 11, 12, 13, 1]
    assert row["decoder_target_tokens"].tolist() == [40, 41, 1]


LAYOUTS = [
    Layout("encoder_decoder", 9, 5),
    Layout("decoder", 9, 5, start_id=0),
    Layout("decoder", 9, 5, start_id=None, prefix_ids=(7, 7), inputs_eos=False),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lengths_and_sizes_are_what_a_row_takes(layout):
    random = np.random.default_rng(0)
    for _ in range(50):
        raw = random.integers(0, 20, (1, 2))
        one = example(np.full(raw[0, 0], 5), np.full(raw[0, 1], 6))
        row = layout.row([one])
        used = (row["decoder_segment_ids"] > 0).sum()
        loss = row["decoder_loss_weights"].sum()
        inputs, targets = layout.lengths(raw)[0]
        assert loss == targets == len(layout.target(one.targets))
        assert inputs == len(layout.prompt(one.inputs))
        size = layout.sizes(raw)[0]
        if layout.kind == "decoder":
            assert size.tolist() == [used, 0]
        else:
            assert size.tolist() == [(row["encoder_segment_ids"] > 0).sum(), used]
        assert (size <= layout.limits).all()
        assert {name: len(value) for name, value in row.items()} == layout.features


def test_an_empty_row_is_padding_without_loss():
    layout = Layout("decoder", 4, 4, pad_id=3)
    batch = layout.batch([TWO[:1], []])
    assert batch["decoder_target_tokens"][1].tolist() == [3] * 8
    assert batch["decoder_loss_weights"][1].sum() == 0
    assert batch["decoder_segment_ids"][1].sum() == 0


def test_chat_layout_wraps_as_the_template_does():
    lengths = {"inputs": 20, "targets": 5}
    layout = make_layout("decoder", lengths, Words(), "chat", system_prompt="be")
    ids = layout.prompt([ord("q")])
    assert "".join(map(chr, ids)) == "<s>be\n<u>q\n<a>"
    assert layout.start_id is None and not layout.inputs_eos


def test_plain_layouts_separate_by_eos():
    lengths = {"inputs": 20, "targets": 5}
    assert make_layout("decoder", lengths, Words()).prompt([5]).tolist() == [5, 1]
    layout = make_layout("encoder_decoder", lengths, Words())
    assert layout.prompt([5]).tolist() == [5, 1] and layout.start_id == 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"inputs": 7, "targets": 5}, "inputs=7 is too small for any example"),
        ({"inputs": 20, "targets": 1}, "targets=1 is too small for any example"),
    ],
)
def test_a_feature_length_without_room_is_a_data_error(lengths, message):
    with pytest.raises(DataError, match=message) as caught:
        make_layout("decoder", lengths, Words(), "chat")
    assert caught.value.exit_code == 3 and "at least" in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "decodr"},
        {"kind": "decoder", "wrapping": "caht"},
        {"kind": "encoder_decoder", "wrapping": "chat"},
        {"kind": "decoder", "feature_lengths": {"input": 4, "targets": 4}},
    ],
)
def test_unknown_choices_are_config_errors(arguments):
    defaults = {"feature_lengths": {"inputs": 20, "targets": 5}}
    with pytest.raises(ConfigError):
        make_layout(vocabulary=Words(), **{**defaults, **arguments})
