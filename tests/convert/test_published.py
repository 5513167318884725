"""The config.json of published models is the model that gin/models says."""

from pathlib import Path

import pytest

from flanjax.config import load_config
from flanjax.convert.hf_config import decoder_config, t5_config
from flanjax.convert.weights import differences
from flanjax.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
LLAMA_3 = {
    "model_type": "llama",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
QWEN = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "num_hidden_layers": 24,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "max_window_layers": 24,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}
# What they say of the function, as on huggingface.co.
PUBLISHED = {
    "llama2_7b": {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "vocab_size": 32000,
    },
    "llama3_8b": LLAMA_3,
    "llama3_1_8b": LLAMA_3
    | {
        "mlp_bias": False,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
    "mistral_7b": {
        "model_type": "mistral",
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "vocab_size": 32000,
    },
    "qwen2_5_0_5b": QWEN,
    "qwen2_5_7b": QWEN
    | {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "sliding_window": 131072,
        "max_window_layers": 28,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
    },
    "smollm2_135m": {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-05,
        "rope_interleaved": False,
        "rope_scaling": None,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "vocab_size": 49152,
    },
    "t5_1_1_small": {
        "model_type": "t5",
        "d_ff": 1024,
        "d_kv": 64,
        "d_model": 512,
        "dropout_rate": 0.1,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-06,
        "num_decoder_layers": 8,
        "num_heads": 6,
        "num_layers": 8,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "vocab_size": 32128,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_that_of_gin(name):
    facts = PUBLISHED[name]
    files = [str(ROOT / "gin/recipes/tiny.gin"), str(ROOT / f"gin/models/{name}.gin")]
    run, _ = load_config(files, ["MODEL_DIR=unused"], [str(ROOT)])
    if facts["model_type"] == "t5":
        config = t5_config(facts, tied=False, where="config.json")
    else:
        config = decoder_config(facts, "config.json")
    assert differences(config, run.model) == []


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({}, None),
        ({"use_sliding_window": True}, None),  # The window's first layer is the 25th.
        ({"use_sliding_window": True, "max_window_layers": 0}, 32768),
        ({"use_sliding_window": True, "layer_types": ["full_attention"] * 24}, None),
        ({"model_type": "mistral"}, 32768),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "llama"}, None),
    ],
)
def test_a_window_is_one_only_where_the_model_type_says_so(changes, window):
    assert decoder_config(QWEN | changes, "config.json").sliding_window == window


def test_a_window_in_some_layers_is_refused():
    facts = QWEN | {"use_sliding_window": True, "max_window_layers": 12}
    with pytest.raises(CheckpointError, match="max_window_layers is 12"):
        decoder_config(facts, "config.json")
