"""Ids, special tokens, chat templates and errors of every kind of vocabulary."""

import json
import pickle
import random
import subprocess
import sys

import pytest

from flanjax.data.fetch import fetched_path
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import ConfigError, DataError

TEXTS = ["one two three", "", "two\n\n  one\t", "été 12345 日本 🙂", "{a} <turn> 'll"]


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return load_vocabulary(f"tokenizer:{tiny_tokenizer}")


@pytest.fixture
def sentencepiece_model(tmp_path):
    import sentencepiece

    path = tmp_path / "spm.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["one two three", "three two one two"] * 20),
            model_writer=file,
            vocab_size=20,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    return path


def test_importing_the_module_loads_no_library():
    libraries = ("tensorflow", "jax", "tokenizers", "sentencepiece", "gguf", "jinja2")
    code = "import sys, flanjax.data.vocabulary; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(libraries) & set(done.stdout.split())


def test_bytes_come_back_whatever_the_text():
    vocabulary = load_vocabulary("bytes")
    draw = random.Random(0)
    for _ in range(200):
        ranges = (range(1, 128), range(0xE000, 0x1FFFF))  # No surrogates.
        text = "".join(chr(draw.choice(draw.choice(ranges))) for _ in range(20))
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert all(3 <= i < 259 for i in ids)
    assert vocabulary.size == 384


def test_a_tokenizer_gives_every_text_back(tokenizer):
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(t) for t in TEXTS]


def test_special_ids_come_from_the_tokenizers_settings(tokenizer):
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, None)
    assert tokenizer.token(tokenizer.eos_id) == "<end>"


def test_decoding_stops_at_eos_and_drops_special_and_padding_ids(tokenizer):
    ids = tokenizer.encode("one two")
    for vocabulary in (tokenizer, load_vocabulary("bytes")):
        ids = vocabulary.encode("one two")
        tail = [vocabulary.eos_id, *vocabulary.encode("never")]
        assert vocabulary.decode([vocabulary.pad_id, *ids, *tail]) == "one two"
    turn = tokenizer.encode("<turn>", special=True)
    assert tokenizer.decode([*turn, *ids]) == tokenizer.decode(ids)
    assert tokenizer.decode([*tokenizer.encode("one"), 10**6]) == "one"


def test_data_cannot_forge_special_tokens(tokenizer, sentencepiece_model):
    assert tokenizer.encode("<turn>", special=True) == [2]
    assert 2 not in tokenizer.encode("<turn>")
    assert [2] not in tokenizer.encode_batch(["<turn>", "<end>"])
    pieces = load_vocabulary(f"sentencepiece:{sentencepiece_model}")
    assert pieces.encode("<extra_id_0>", special=True) == [pieces.size - 1]
    assert pieces.encode("<extra_id_99>", special=True) == [pieces.size - 100]
    assert max(pieces.encode("<extra_id_0>")) < pieces.size - 100


def test_chat_is_rendered_as_the_template_says(tokenizer):
    messages = [{"role": "user", "content": "one"}]
    text = tokenizer.render_chat(messages, add_generation_prompt=True)
    assert text == "<turn>user: one<end><turn>"
    assert tokenizer.encode(text, special=True)[0] == 2


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for %}",
    ],
)
def test_a_template_that_refuses_or_misbehaves_is_a_clear_error(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match="cannot render the chat"):
        tokenizer.render_chat([], True)


def test_a_vocabulary_without_template_says_so():
    with pytest.raises(ConfigError, match="no chat template"):
        load_vocabulary("bytes").render_chat([], True)


def test_templates_in_a_file_of_their_own_are_found(tiny_tokenizer):
    (tiny_tokenizer / "chat_template.jinja").write_text("{{ messages | length }}!")
    vocabulary = load_vocabulary(f"tokenizer:{tiny_tokenizer}")
    assert vocabulary.render_chat([{}, {}], False) == "2!"


def test_sentencepiece_agrees_with_the_library(sentencepiece_model):
    import sentencepiece

    vocabulary = load_vocabulary(f"sentencepiece:{sentencepiece_model}")
    library = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    assert vocabulary.size == library.get_piece_size() + 100
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    for text in TEXTS:
        assert vocabulary.encode(text) == library.encode(text)
    assert vocabulary.decode(vocabulary.encode("one two")) == "one two"


def test_a_tokenizer_that_says_nothing_begins_its_texts_is_believed(tiny_tokenizer):
    path = tiny_tokenizer / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    (tiny_tokenizer / "config.json").write_text('{"bos_token_id": 2}')
    assert load_vocabulary(f"tokenizer:{tiny_tokenizer}").bos_id == 2
    path.write_text(json.dumps(settings | {"bos_token": None}))  # Qwen2's files.
    assert load_vocabulary(f"tokenizer:{tiny_tokenizer}").bos_id is None


def test_t5s_two_tokenizer_files_agree(shared, tmp_path):
    import gzip

    folder = shared / "data" / "tokenizer"
    pieces = load_vocabulary(f"sentencepiece:{folder / 't5_spiece_rebuilt.model'}")
    packed = (folder / "t5_tokenizer.json.gz").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(gzip.decompress(packed))
    fast = load_vocabulary(f"tokenizer:{tmp_path}")
    text = "Is the sky blue?  Answer yes or no."
    assert fast.encode(text) == pieces.encode(text)
    assert fast.size == pieces.size == 32100
    for name in ("pad_id", "eos_id", "unk_id"):
        assert getattr(fast, name) == getattr(pieces, name), name


def test_smollm2_ids_and_chat_are_transformers_own(shared):
    golden = json.loads((shared / "golden/smollm2/reference.json").read_text())
    try:
        fetched_path("smollm2")
    except DataError as error:
        pytest.skip(str(error))
    vocabulary = load_vocabulary("gguf:smollm2")
    assert vocabulary.encode_batch(golden["prompts"]) == golden["ids"]
    chat = golden["chat_example"]
    assert vocabulary.chat_template == golden["chat_template"]
    assert vocabulary.render_chat(chat["messages"], True) == chat["rendered"]
    assert vocabulary.encode(chat["rendered"], special=True) == chat["ids"]


def test_vocabularies_pickle_by_spec_and_have_stable_fingerprints(tiny_tokenizer):
    for spec in ("bytes", f"tokenizer:{tiny_tokenizer}"):
        vocabulary = load_vocabulary(spec)
        copy = pickle.loads(pickle.dumps(vocabulary))
        assert copy.spec == spec
        assert copy.fingerprint() == vocabulary.fingerprint()


def test_a_changed_tokenizer_has_another_fingerprint(tiny_tokenizer):
    spec = f"tokenizer:{tiny_tokenizer}"
    before = load_vocabulary(spec).fingerprint()
    settings = json.loads((tiny_tokenizer / "tokenizer_config.json").read_text())
    settings["eos_token"] = "<turn>"
    (tiny_tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_vocabulary(spec).fingerprint() != before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("byte", "Did you mean 'bytes'"),
        ("bytes:x", "names no vocabulary"),
        ("tokenizer:", "names no vocabulary"),
        ("tokenizer:no/such/folder", "no/such/folder"),
        ("sentencepiece:none.model", "none.model"),
        ("gguf:none.gguf", "not found"),
        ("gguf:smollm3", "Did you mean 'smollm2'"),
    ],
)
def test_a_wrong_spec_names_itself_and_the_way_out(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_vocabulary(spec)


def test_a_tokenizer_without_eos_is_refused(tiny_tokenizer):
    (tiny_tokenizer / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match="end-of-sequence"):
        load_vocabulary(f"tokenizer:{tiny_tokenizer}")
