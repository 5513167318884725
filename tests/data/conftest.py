"""A tokenizer of a few tokens, made by the test."""

import json

import pytest


@pytest.fixture
def tiny_tokenizer(tmp_path):
    """A directory with a byte-level BPE of 300-odd tokens, as Hugging Face has it."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<end>", "<turn>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["one two three two one"] * 3, trainer)
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    template = (
        "{% for m in messages %}<turn>{{ m['role'] }}: {{ m['content'] }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<turn>{% endif %}"
    )
    settings = {
        "eos_token": "<end>",
        "pad_token": {"content": "<pad>", "__type": "AddedToken"},
        "chat_template": template,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory
