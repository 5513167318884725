"""Rendering of registered tasks, as preparing does it."""

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
