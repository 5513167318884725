"""What TensorFlow Datasets has prepared is read offline, in order, as Python values."""

import pytest

from flanjax.data.located import DatasetSource
from flanjax.data.tfds_source import find_prepared
from flanjax.errors import DataError

SIZE = 30


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data root where TFDS has written the dataset tiny/easy:1.0.2."""
    tf = pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    features = tfds.features
    texts = features.Sequence(features.Text())
    shape = {
        "premise": features.Text(),
        "label": features.ClassLabel(names=["no", "yes"]),
        "choices": texts,
        "answers": features.Sequence({"text": features.Text(), "start": tf.int32}),
        "nested": {"rows": features.Sequence(texts), "flag": tf.bool},
    }
    rows = [
        {
            "premise": f"é {number}",
            "label": number % 2,
            "choices": ["a", "b"][: number % 3],
            "answers": [{"text": "x", "start": number}],
            "nested": {"rows": [["p"], ["q", "r"]], "flag": True},
        }
        for number in range(SIZE)
    ]

    class Tiny(tfds.core.GeneratorBasedBuilder):
        __module__ = "tiny"  # Where TFDS looks for its file, which it does not need.
        VERSION = tfds.core.Version("1.0.2")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="easy")]

        def _info(self):
            described = features.FeaturesDict(shape)
            return tfds.core.DatasetInfo(builder=self, features=described)

        def _split_generators(self, dl_manager):
            return {"train": iter(enumerate(rows))}

        def _generate_examples(self):
            raise NotImplementedError

    root = tmp_path_factory.mktemp("root")
    Tiny(data_dir=str(root / "tfds"), config="easy").download_and_prepare()
    return root


@pytest.fixture
def root(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("FLANJAX_DATA", str(prepared))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    return prepared


PARTS = {"train": "train[:-10]", "validation": "train[-10:]", "nothing": "train[40:]"}


def test_rows_are_python_values_with_ids_that_stay(root):
    source = DatasetSource("d", PARTS, tfds="tiny/easy:1.0.2")
    rows = list(source.rows("train"))
    row = rows[0]
    number = int(row["premise"].removeprefix("é "))
    assert row["label"] == number % 2 and type(row["label"]) is int
    assert row["choices"] == ["a", "b"][: number % 3]
    assert row["answers"] == {"text": ["x"], "start": [number]}
    assert row["nested"] == {"rows": [["p"], ["q", "r"]], "flag": True}
    assert row["row_id"] == "tiny-train.tfrecord-00000-of-00001__0"
    assert rows == list(source.rows("train"))


def test_slices_share_no_row_and_miss_none(root):
    source = DatasetSource("d", PARTS, tfds="tiny/easy")
    found = {split: [r["premise"] for r in source.rows(split)] for split in PARTS}
    assert [len(each) for each in found.values()] == [20, 10, 0]
    assert len({*found["train"], *found["validation"]}) == SIZE
    limited = DatasetSource("d", PARTS, tfds="tiny/easy", limit=7)
    kept = [row["premise"] for row in limited.rows("train")]
    assert len(kept) == 7 and kept == [p for p in found["train"] if p in kept]


def test_fields_map_what_tfds_stored(root):
    source = DatasetSource(
        "d",
        {"train": "train"},
        fields=lambda row: {"answer": row["answers"]["text"][0]},
        tfds="tiny/easy:1.0.2",
    )
    assert {row["answer"] for row in source.rows("train")} == {"x"}
    broken = DatasetSource("d", {"train": "train"}, lambda r: r["no"], "tiny/easy")
    with pytest.raises(DataError, match=r"tfrecord-00000-of-00001__0.*") as error:
        list(broken.rows("train"))
    assert "the keys" in str(error.value)


def test_looking_for_a_dataset_needs_no_version_and_no_only_config(root):
    places = [root / "tfds"]
    folder = root / "tfds/tiny/easy/1.0.2"
    for name in ("tiny/easy:1.0.2", "tiny/easy", "tiny", "huggingface:Tiny/Easy"):
        assert find_prepared(name, places) == folder
    for name in ("tiny/easy:1.0.1", "tiny/hard", "other"):
        assert find_prepared(name, places) is None


def test_the_own_folder_of_tfds_is_searched_too(root, tmp_path, monkeypatch):
    monkeypatch.setenv("FLANJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(root / "tfds"))
    source = DatasetSource("d", PARTS, tfds="tiny/easy:1.0.2")
    assert source.present("train") and str(root) in source.where("train")
    assert len(list(source.rows("train"))) == 20


def test_a_local_file_wins(root):
    path = root / "local/train.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"premise": "mine"}\n')
    source = DatasetSource("local", {"train": "train"}, tfds="tiny/easy:1.0.2")
    assert [row["premise"] for row in source.rows("train")] == ["mine"]


def test_a_split_that_was_not_prepared_is_named_with_the_nearest(root):
    source = DatasetSource("d", {"train": "trian"}, tfds="tiny/easy:1.0.2")
    for read in (source.fingerprint, lambda split: list(source.rows(split))):
        with pytest.raises(DataError, match="Did you mean 'train'"):
            read("train")


def test_the_fingerprint_is_of_what_lies_there(root):
    source = DatasetSource("d", PARTS, tfds="tiny/easy:1.0.2")
    prints = {split: source.fingerprint(split) for split in PARTS}
    assert len(set(prints.values())) == 3
    assert prints["train"] == source.fingerprint("train")
    info = root / "tfds/tiny/easy/1.0.2/dataset_info.json"
    before = info.read_text()
    info.write_text(before.replace(f'"{SIZE}"', f'"{SIZE + 1}"'))
    try:
        assert source.fingerprint("train") != prints["train"]
    finally:
        info.write_text(before)
