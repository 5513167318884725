"""Tokenizers of Llama 2: SentencePiece's BPE, in and out, in each of its files."""

import json
import pickle

import pytest

from flanjax.convert.tokenizer import save_tokenizer
from flanjax.convert.weights import import_vocabulary
from flanjax.data.vocabulary import load_vocabulary
from flanjax.errors import ConfigError

TEXTS = ["one two three", "", "two\n\n  one\t", "été 12345 日本 🙂", "{a} <turn> 'll"]
TEXTS += ["three  one", " two", "one</s>two", "<s>", "twotwo\n", "▁one"]
SPECIAL = ("pad_id", "eos_id", "bos_id", "unk_id")


def same(first, second):
    assert first.encode_batch(TEXTS) == second.encode_batch(TEXTS)
    for text in TEXTS[:-1]:
        assert second.decode(second.encode(text)) == text
    for name in ("size", *SPECIAL, "chat_template"):
        assert getattr(first, name) == getattr(second, name), name


@pytest.fixture(scope="module")
def llama2(tmp_path_factory):
    """A directory with a tokenizer.model in Llama 2's manner, and its settings."""
    import sentencepiece

    directory = tmp_path_factory.mktemp("llama2")
    with (directory / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["one two three", "three two one two"] * 20),
            model_writer=file,
            vocab_size=290,
            hard_vocab_limit=False,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            minloglevel=2,
        )
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": {"content": "<s>"},
        "eos_token": {"content": "</s>"},
        "chat_template": "{{ bos_token }}{{ messages[0].content }}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def pieces_of(directory):
    from sentencepiece import sentencepiece_model_pb2

    content = (directory / "tokenizer.model").read_bytes()
    return sentencepiece_model_pb2.ModelProto.FromString(content).pieces


def test_a_tokenizer_model_is_read_as_the_library_reads_it(llama2):
    import sentencepiece

    vocabulary = load_vocabulary(f"tokenizer:{llama2}")
    library = sentencepiece.SentencePieceProcessor(
        model_file=str(llama2 / "tokenizer.model")
    )
    assert vocabulary.size == library.get_piece_size()  # No sentinels: not T5's.
    ids = [getattr(vocabulary, name) for name in SPECIAL]
    assert ids == [2, 2, 1, 0]  # Nothing is named padding.
    assert vocabulary.encode_batch(TEXTS) == library.encode(TEXTS)
    for text in TEXTS[:-1]:  # The last one's mark is a space to SentencePiece.
        assert vocabulary.decode(vocabulary.encode(text)) == text
    chat = vocabulary.render_chat([{"content": "two"}], True)
    assert chat == "<s>two"
    assert vocabulary.encode(chat, special=True)[:2].count(1) == 1
    assert 1 not in vocabulary.encode(chat)
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert copy.fingerprint() == vocabulary.fingerprint()


def test_an_export_has_both_files_and_both_give_the_same_ids(llama2, tmp_path):
    vocabulary = load_vocabulary(f"tokenizer:{llama2}")
    save_tokenizer(tmp_path, vocabulary)
    quick = import_vocabulary(str(tmp_path))
    assert quick.spec == f"tokenizer:{tmp_path}"
    same(vocabulary, quick)
    assert quick.tokenizer.encode("one").ids == [1, *vocabulary.encode("one")]
    assert (tmp_path / "tokenizer.model").read_bytes() == vocabulary.model
    (tmp_path / "tokenizer.json").unlink()
    same(vocabulary, import_vocabulary(str(tmp_path)))


def test_tokens_beyond_the_pieces_need_the_other_file(llama2, tmp_path):
    for file in llama2.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "added_tokens.json").write_text('{"<turn>": 500}')
    with pytest.raises(ConfigError, match=r"only a tokenizer\.json"):
        load_vocabulary(f"tokenizer:{tmp_path}")


def test_a_gguf_files_pieces_are_the_model_they_came_from(llama2, tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tokenizer_model("llama")
    pieces = pieces_of(llama2)
    writer.add_token_list([piece.piece for piece in pieces])
    writer.add_token_scores([piece.score for piece in pieces])
    writer.add_token_types([piece.type for piece in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    first = load_vocabulary(f"tokenizer:{llama2}")
    second = load_vocabulary(f"gguf:{tmp_path / 'm.gguf'}")
    first.chat_template = None  # This file has none.
    same(first, second)
