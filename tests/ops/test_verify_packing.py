import pytest

from flanjax.models import decoder, t5
from flanjax.models.attention import segment_mask
from flanjax.ops.verify_packing import verify_packing


def test_packed_examples_do_not_see_each_other_in_either_family():
    rows = verify_packing()
    assert [row.check for row in rows if not row.ok] == []
    assert {row.check.split(":")[0] for row in rows} == {"t5", "decoder"}


@pytest.mark.slow
def test_a_mask_that_forgets_segments_is_found(monkeypatch):
    def forgetful(query, key, **options):
        return segment_mask((query > 0).astype(int), (key > 0).astype(int), **options)

    monkeypatch.setattr(t5, "segment_mask", forgetful)
    monkeypatch.setattr(decoder, "segment_mask", forgetful)
    failed = [row.check for row in verify_packing() if not row.ok]
    for route in ("encoder self", "decoder self", "cross", "decoder: self"):
        assert any(route in check for check in failed)
    assert any("packed = unpacked" in check for check in failed)
