"""Packing by lengths: loses nothing, exceeds nothing, wastes little."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

from flanjax.data.layout import Layout
from flanjax.data.packing import pack

_BENCH = Path(__file__).parents[1] / "bench" / "plan_speed.py"
_spec = importlib.util.spec_from_file_location("plan_speed", _BENCH)
assert _spec and _spec.loader
plan_speed = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plan_speed)


def flan_like(count: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Inputs of mean 150 and targets of mean 20 * scale, long-tailed."""
    random = np.random.default_rng(seed)
    inputs = np.exp(random.normal(np.log(150) - 0.4, 0.9, count))
    targets = np.exp(random.normal(np.log(20 * scale) - 0.5, 1.0, count))
    sizes = np.stack([inputs.clip(2, 1024), targets.clip(2, 256)], axis=1)
    return sizes.astype(np.int32)


def row_sums(sizes, order, starts):
    return np.add.reduceat(sizes[order].astype(np.int64), starts[:-1], axis=0)


@pytest.mark.parametrize("seed", range(20))
def test_every_example_is_in_one_row_and_no_row_exceeds_a_limit(seed):
    random = np.random.default_rng(seed)
    limits = tuple(random.integers(1, 60, 2))
    sizes = random.integers(0, np.array(limits) + 1, (random.integers(1, 300), 2))
    order, starts = pack(sizes, limits)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    assert starts[0] == 0 and starts[-1] == len(sizes) and (np.diff(starts) > 0).all()
    assert (row_sums(sizes, order, starts) <= limits).all()


@pytest.mark.parametrize(
    ("sizes", "limits", "fill"),
    [
        (flan_like(32768), (1024, 256), 0.98),
        (flan_like(8192), (1024, 256), 0.97),
        (flan_like(32768, scale=3), (1024, 256), 0.94),
        (flan_like(32768) * [1, 0], (1024, 0), 0.995),
    ],
    ids=["flan", "small block", "targets are scarce", "one budget"],
)
def test_fill_is_close_to_the_bound(sizes, limits, fill):
    _, starts = pack(sizes, limits)
    sums = sizes.sum(axis=0)
    bound = max(sums[i] / limits[i] for i in range(2) if limits[i])
    assert bound / (len(starts) - 1) >= fill


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("layout", "count", "fill", "ratio"),
    [
        (Layout("encoder_decoder", 1024, 256), 8192, 0.985, 1.17),
        (Layout("encoder_decoder", 1024, 256), 65_536, 0.985, 1.17),
        (Layout("decoder", 1792, 256), 8192, 0.998, 1.08),
    ],
    ids=["default block", "large block", "decoder"],
)
def test_rows_are_fuller_and_fewer_than_seqios(layout, count, fill, ratio, seed):
    found = plan_speed.packing(layout, count, seed)
    assert found["fill"] >= fill
    assert found["SeqIO's rows"] / found["rows"] >= ratio


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_reference_is_what_seqio_packs():
    import seqio
    import tensorflow as tf

    limits = {"inputs": 1024, "targets": 256}
    layout = Layout("encoder_decoder", *limits.values())
    sizes = layout.sizes(plan_speed.draw_lengths(3000, 0))

    def rows():
        for n, m in sizes:
            yield {"inputs": np.ones(n, "i4"), "targets": np.ones(m, "i4")}

    kind = tf.TensorSpec([None], tf.int32)
    dataset = tf.data.Dataset.from_generator(
        rows, output_signature=dict.fromkeys(limits, kind)
    )
    packed = seqio.utils.trim_and_pack_dataset(dataset, limits)
    assert sum(1 for _ in packed) == plan_speed.seqio_rows(sizes, layout.limits)


def test_packing_is_deterministic_and_fast():
    sizes = flan_like(65536)
    start = time.process_time()
    first = pack(sizes, (1024, 256))
    seconds = time.process_time() - start
    second = pack(sizes.copy(), (1024, 256))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert seconds < 1, f"{len(sizes) / seconds:.0f} examples/s"


def test_worst_cases_stay_fast():
    count = np.arange(20_000)
    sizes = np.stack([1 + count % 1000, 256 - count % 4], axis=1)
    start = time.process_time()
    _, starts = pack(sizes, (1024, 256))
    assert len(starts) - 1 == len(sizes)
    assert time.process_time() - start < 5


def test_an_example_beyond_a_limit_is_refused():
    with pytest.raises(ValueError, match="between 0 and"):
        pack(np.array([[5, 1]]), (4, 4))


def test_no_examples_make_no_rows():
    order, starts = pack(np.zeros((0, 2), int), (4, 4))
    assert len(order) == 0 and starts.tolist() == [0]
