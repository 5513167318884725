"""SeqIO sees the same ids as flanjax does."""

import pickle

import pytest

from flanjax.data.vocabulary import load_vocabulary

tf = pytest.importorskip("tensorflow")

from flanjax.data import seqio_vocabulary  # noqa: E402
from flanjax.data.seqio_vocabulary import (  # noqa: E402
    LazyVocabulary,
    SeqioVocabulary,
    set_default_vocabulary,
)


@pytest.fixture(autouse=True)
def bytes_by_default():
    yield
    set_default_vocabulary("bytes")


@pytest.fixture
def tokenizer_spec(tiny_tokenizer):
    return f"tokenizer:{tiny_tokenizer}"


TEXTS = ["one two", "", "été 12", "two\n one"]


def test_byte_vocabulary_is_seqios_own():
    import seqio

    ours, theirs = SeqioVocabulary(load_vocabulary("bytes")), seqio.ByteVocabulary(125)
    for name in ("vocab_size", "extra_ids", "pad_id", "eos_id", "unk_id"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for text in TEXTS:
        assert list(ours.encode(text)) == list(theirs.encode(text))
        assert ours.encode_tf(tf.constant(text)).numpy().tolist() == ours.encode(text)
    ids = [107, 108, 1, 109]
    assert ours.decode(ids) == theirs.decode(ids) == "hi"


@pytest.mark.parametrize("kind", ["bytes", "tokenizer"])
def test_tensorflow_and_python_encode_alike(kind, tokenizer_spec):
    spec = tokenizer_spec if kind == "tokenizer" else kind
    vocabulary = SeqioVocabulary(load_vocabulary(spec))
    expected = [vocabulary.encode(text) for text in TEXTS]
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS).map(vocabulary.encode_tf)
    assert [ids.numpy().tolist() for ids in dataset] == expected
    assert dataset.element_spec.dtype == tf.int32
    assert dataset.element_spec.shape.as_list() == [None]
    batched = vocabulary.encode_tf(tf.constant(TEXTS))
    assert batched.to_list() == expected


def test_tensorflow_decodes_a_batch_up_to_eos(tokenizer_spec):
    vocabulary = SeqioVocabulary(load_vocabulary(tokenizer_spec))
    row = vocabulary.encode("one two")
    ids = [[*row, vocabulary.eos_id, 5], [*row, 5, vocabulary.eos_id]]
    texts = vocabulary.decode_tf(tf.constant(ids)).numpy().tolist()
    assert texts == [vocabulary.decode(i).encode() for i in ids]
    assert texts[0] == b"one two"


def test_lazy_vocabulary_follows_the_default_and_pickles_as_it_is(tokenizer_spec):
    lazy = LazyVocabulary()
    assert lazy.vocab_size == 384
    set_default_vocabulary(tokenizer_spec)
    real = SeqioVocabulary(load_vocabulary(tokenizer_spec))
    assert lazy.encode("one two") == real.encode("one two")
    assert lazy == real and lazy == LazyVocabulary()
    restored = pickle.loads(pickle.dumps(lazy))
    set_default_vocabulary("bytes")
    assert restored == real and lazy != real


def test_a_task_is_tokenised_by_the_default_vocabulary(tokenizer_spec):
    import seqio

    set_default_vocabulary(tokenizer_spec)
    features = {"inputs": seqio.Feature(LazyVocabulary(), add_eos=True)}
    rows = tf.data.Dataset.from_tensor_slices({"inputs": TEXTS})
    rows = seqio.preprocessors.tokenize(rows, output_features=features)
    rows = seqio.preprocessors.append_eos(rows, features)
    vocabulary = seqio_vocabulary.LazyVocabulary().vocabulary
    assert [row["inputs"].numpy().tolist() for row in rows] == [
        [*vocabulary.encode(text), vocabulary.eos_id] for text in TEXTS
    ]
