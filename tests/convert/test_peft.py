import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from flanjax.convert.peft import save_adapter
from flanjax.errors import ConfigError
from flanjax.models.build import abstract_params, build_model
from flanjax.models.decoder import DecoderConfig
from flanjax.models.lora import LoraConfig, merge_lora
from flanjax.models.t5 import T5Config

LORA = LoraConfig(rank=2, alpha=6.0, dropout=0.1)
LLAMA = DecoderConfig(20, 8, 2, 1, 6, 12, 3, lora=LORA)
T5 = T5Config(20, 8, 2, 6, 12, 2, 3, lora=LORA)


def drawn(config, seed=0):
    rng = np.random.default_rng(seed)
    shapes, _ = abstract_params(build_model(config))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def read(directory):
    facts = json.loads((directory / "adapter_config.json").read_text())
    return facts, load_file(directory / "adapter_model.safetensors")


def targeting(config, *targets):
    lora = dataclasses.replace(LORA, targets=targets)
    return dataclasses.replace(config, lora=lora)


def test_a_decoders_adapters_have_pefts_names_and_orientation(tmp_path):
    params = drawn(LLAMA)
    facts, tensors = read(save_adapter(tmp_path / "a", LLAMA, params, "base"))
    assert facts == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": 2,
        "lora_alpha": 6.0,
        "lora_dropout": 0.1,
        "target_modules": [
            "down_proj",
            "gate_proj",
            "k_proj",
            "o_proj",
            "q_proj",
            "up_proj",
            "v_proj",
        ],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    assert len(tensors) == 3 * 7 * 2
    key = params["decoder"]["layers"]["self_attention"]["key"]
    module = "base_model.model.model.layers.1.self_attn.k_proj"
    np.testing.assert_array_equal(
        tensors[f"{module}.lora_A.weight"], key["lora_a"][1].T
    )
    np.testing.assert_array_equal(
        tensors[f"{module}.lora_B.weight"], key["lora_b"][1].T
    )
    assert tensors[f"{module}.lora_A.weight"].shape == (2, 8)
    assert tensors[f"{module}.lora_B.weight"].shape == (6, 2)


@pytest.mark.parametrize("scanned", [True, False])
def test_the_product_of_the_files_matrices_is_what_merging_adds(tmp_path, scanned):
    config = dataclasses.replace(T5, scan_layers=scanned)
    params = drawn(config)
    facts, tensors = read(save_adapter(tmp_path / "a", config, params))
    assert facts["task_type"] == "SEQ_2_SEQ_LM"
    assert len(tensors) == (2 * 7 + 3 * 11) * 2
    merged = merge_lora(params, config)

    def kernel(tree):
        layers = tree["decoder"]["layers" if scanned else "layers_2"]
        kernel = layers["encoder_decoder_attention"]["out"]["kernel"]
        return kernel[2] if scanned else kernel

    module = "base_model.model.decoder.block.2.layer.1.EncDecAttention.o"
    a, b = (tensors[f"{module}.lora_{x}.weight"] for x in "AB")
    scale = facts["lora_alpha"] / facts["r"]
    added = kernel(merged) - kernel(params)
    np.testing.assert_allclose(scale * (b @ a).T, added, atol=1e-4)


TARGETS = {
    "some": (LLAMA, ["self_attention/(query|value)"], ["q_proj", "v_proj"]),
    "both stacks": (T5, ["query", "mlp/wo"], ["q", "wo"]),
    "one stack": (T5, ["encoder/layers/mlp/wo"], None),
    "one kind of attention": (T5, ["decoder/layers/self_attention/query"], None),
}


@pytest.mark.parametrize(("config", "targets", "short"), TARGETS.values(), ids=TARGETS)
def test_targets_name_the_adapted_modules_and_no_others(
    config, targets, short, tmp_path
):
    config = targeting(config, *targets)
    facts, tensors = read(save_adapter(tmp_path / "a", config, drawn(config)))
    adapted = {re.sub(r"^base_model\.model\.|\.lora_.*", "", name) for name in tensors}
    assert facts["target_modules"] == (short or sorted(adapted))
    assert adapted and len(tensors) == 2 * len(adapted)


def test_only_the_adapters_need_to_be_there(tmp_path):
    """A checkpoint of a LoRA run has no more; with a frozen stack it has fewer."""
    wo = drawn(LLAMA)["decoder"]["layers"]["mlp"]["wo"]
    part = {
        "decoder": {"layers": {"mlp": {"wo": {k: wo[k] for k in wo if k[0] == "l"}}}}
    }
    facts, tensors = read(save_adapter(tmp_path / "a", LLAMA, part))
    assert facts["target_modules"] == ["down_proj"] and len(tensors) == 6


def test_an_adapter_replaces_an_adapter_and_nothing_else(tmp_path):
    directory = save_adapter(tmp_path / "a", LLAMA, drawn(LLAMA))
    save_adapter(directory, LLAMA, drawn(LLAMA, seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    with pytest.raises(ConfigError, match="something else"):
        save_adapter(tmp_path / "model", LLAMA, drawn(LLAMA))
    plain = dataclasses.replace(LLAMA, lora=LoraConfig())
    with pytest.raises(ConfigError, match="no adapters"):
        save_adapter(tmp_path / "b", plain, drawn(plain))
    assert not (tmp_path / "b").exists()
