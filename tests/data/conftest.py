"""A tokenizer of a few tokens and a prepared store, made by the test."""

import json

import numpy as np
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


@pytest.fixture
def make_resolved(tmp_path):
    """Returns a function that writes a store: {name: (examples, share)} -> resolved.

    The first input token of an example says which member it is from, the second which
    example it is.
    """
    from flanjax.data.store import (
        STORE_VERSION,
        Example,
        Member,
        ResolvedMixture,
        TaskWriter,
    )

    def make(tasks: dict[str, tuple[int, float]], inputs=(2, 20), targets=(1, 6)):
        random = np.random.default_rng(0)
        members = []
        for number, (name, (size, share)) in enumerate(tasks.items()):
            path = f"tasks/{name}/train-0"
            (tmp_path / path).mkdir(parents=True)
            writer = TaskWriter(tmp_path / path)
            for index in range(size):
                tokens = random.integers(5, 99, random.integers(*inputs))
                tokens[:2] = [1000 + number, 10_000 + index]
                target = random.integers(5, 99, random.integers(*targets))
                meta = {"row_id": f"{name}:{index}"}
                writer.add(Example(tokens.astype("i4"), target.astype("i4"), meta))
            info = writer.finish({"task": name})
            members.append(
                Member(name, share, share, None, size, path, f"fp-{name}", info)
            )
        return ResolvedMixture(
            version=STORE_VERSION,
            name="mix",
            vocabulary={"spec": "bytes", "fingerprint": "f", "size": 384},
            seed=0,
            passes=1,
            members=tuple(members),
            validation=(),
            evals=(),
            files={},
        )

    return make
