"""LoRA adapters written by flanjax and loaded by peft onto the exported base model."""

import dataclasses

import jax
import numpy as np
import pytest

from flanjax.convert.huggingface import save_huggingface
from flanjax.convert.peft import save_adapter
from flanjax.models.build import abstract_params, build_model
from flanjax.models.lora import ALL_KERNELS, LoraConfig, is_lora, merge_lora
from flanjax.train.state import merge_params, split_params

pytestmark = [
    pytest.mark.hf,
    # peft asks transformers for what its next version will call otherwise.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    # transformers 5 calls every T5 tied, though the head of T5 1.1 is its own.
    pytest.mark.filterwarnings("ignore:Input and output embeddings:UserWarning"),
]

TARGETS = {
    "t5_1_0": ALL_KERNELS,
    "t5_1_1": ("decoder/layers/self_attention/(query|value)", "encoder/.*mlp/wo"),
    "llama3": ALL_KERNELS,
    "mistral": ("mlp/.*",),
    "qwen2": ("query", "value"),
}


@pytest.fixture
def adapted(family):
    """A family's configuration with adapters, and its parameters with random ones."""
    if family.name not in TARGETS:
        pytest.skip("adapted like another of its family")
    lora = LoraConfig(rank=3, alpha=5.0, targets=TARGETS[family.name], dropout=0.2)
    config = dataclasses.replace(family.config, lora=lora)
    draw = np.random.default_rng(3)
    adapters, _ = split_params(abstract_params(build_model(config))[0], is_lora)
    drawn = jax.tree.map(
        lambda x: draw.normal(0, 0.3, x.shape).astype(np.float32), adapters
    )
    return config, merge_params(family.params, drawn)


def test_peft_loads_the_adapters_onto_the_base_model(
    family,
    adapted,
    peft,
    load,
    our_numbers,
    their_numbers,
    assert_equal_numbers,
    tmp_path,
):
    config, params = adapted
    base = save_huggingface(tmp_path / "base", family.config, family.params)
    adapter = save_adapter(tmp_path / "adapter", config, params, str(base))
    ours, model = our_numbers(config, params), load(base)
    # It matters: the base model says something else.
    assert np.abs(ours[0] - their_numbers(model)[0]).max() > 0.1
    theirs = peft.PeftModel.from_pretrained(model, adapter).eval()
    modules = [name for name, _ in theirs.named_modules() if name.endswith("lora_A")]
    stored = sum(x.size for x in jax.tree.leaves(split_params(params, is_lora)[0]))
    counted = sum(x.numel() for n, x in theirs.named_parameters() if "lora_" in n)
    assert modules and counted == stored
    assert_equal_numbers(ours, their_numbers(theirs))
    # Merged there, and merged here.
    assert_equal_numbers(ours, their_numbers(theirs.merge_and_unload()))
    plain = dataclasses.replace(config, lora=LoraConfig())
    merged = save_huggingface(tmp_path / "merged", plain, merge_lora(params, config))
    assert_equal_numbers(ours, their_numbers(load(merged)))


@pytest.mark.parametrize("family", ["t5_1_1", "llama3"], indirect=True)
def test_the_adapter_names_its_task_and_its_base(
    family, adapted, peft, their_numbers, our_numbers, assert_equal_numbers, tmp_path
):
    """AutoPeftModel needs nothing but the adapter's directory."""
    config, params = adapted
    base = save_huggingface(tmp_path / "base", family.config, family.params)
    adapter = save_adapter(tmp_path / "adapter", config, params, str(base))
    kind = "Seq2SeqLM" if family.name == "t5_1_1" else "CausalLM"
    auto = getattr(peft, f"AutoPeftModelFor{kind}")
    model = auto.from_pretrained(adapter, dtype="float32").eval()
    assert_equal_numbers(our_numbers(config, params), their_numbers(model))
