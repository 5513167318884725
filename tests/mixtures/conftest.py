"""Rendering of registered tasks as preparing does it, and real data for it."""

from pathlib import Path

import pytest


@pytest.fixture
def first_examples():
    """Returns a function: (task name, split, vocabulary) -> its first examples."""
    import seqio

    from flanjax.data import seqio_vocabulary

    before = seqio_vocabulary._default_spec

    def render(name: str, split: str, vocabulary: str = "bytes", count: int = 3):
        seqio_vocabulary.set_default_vocabulary(vocabulary)
        task = seqio.TaskRegistry.get(name)
        dataset = task.source.get_dataset(split, shuffle=True, seed=0)
        dataset = task.preprocess_precache(dataset, seed=0)
        return list(dataset.take(count).as_numpy_iterator())

    yield render
    seqio_vocabulary.set_default_vocabulary(before)


@pytest.fixture
def data_root(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared real data in the layout that FLANJAX_DATA names."""
    data = shared / "data"
    root = tmp_path / "data_root"
    root.mkdir()
    links = {
        "muffin": data / "t0sf_muffin",
        "p3": data / "t0sf_muffin" / "p3_prompted",
        "niv2": data / "niv2",
        "cot": data / "cot",
        "eval": data / "eval",
    }
    for name, target in links.items():
        (root / name).symlink_to(target.resolve())
    monkeypatch.setenv("FLANJAX_DATA", str(root))
    return root
