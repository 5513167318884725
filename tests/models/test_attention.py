import numpy as np

from flanjax.models.attention import relative_position_bucket, segment_mask


def test_relative_position_buckets_equal_t5x(golden):
    recorded = golden.arrays("relpos_buckets")
    distance = recorded["relative_position"]
    for name, bidirectional in (("bidirectional", True), ("causal", False)):
        bucket = relative_position_bucket(distance, bidirectional)
        np.testing.assert_array_equal(bucket, recorded[name])


def test_padding_is_seen_by_nobody_and_segments_stay_apart():
    segments = np.array([[1, 1, 2, 0]])
    mask = np.asarray(segment_mask(segments, segments))[0, 0].astype(int)
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    causal = np.asarray(segment_mask(segments, segments, causal=True))[0, 0]
    assert causal.tolist() == np.tril(mask).astype(bool).tolist()


def test_a_prefix_is_seen_both_ways_but_not_across_segments():
    segments = np.array([[1, 1, 2, 2]])
    prefix = np.array([[1, 1, 1, 0]])
    mask = segment_mask(segments, segments, causal=True, bidirectional=prefix)
    assert np.asarray(mask)[0, 0].astype(int).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]
