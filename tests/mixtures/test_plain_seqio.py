"""Other teams take mixtures/ into their trainers: only data/ comes with them."""

import json
import subprocess
import sys

import pytest

# What a T5X-like trainer does: a mixture by name, its converter, packing.
_OTHER_TRAINER = """
import json, sys
import seqio
import mixtures.tiny
lengths = {"inputs": 128, "targets": 32}
dataset = seqio.get_mixture_or_task("tiny").get_dataset(
    lengths, "train", shuffle=True, seed=0, num_epochs=1)
packed = seqio.EncDecFeatureConverter(pack=True)(dataset, lengths)
rows = list(packed.take(20).as_numpy_iterator())
print(json.dumps({
    "segments": max(int(row["encoder_segment_ids"].max()) for row in rows),
    "features": sorted(rows[0]),
    "ours": sorted(name for name in sys.modules if name.startswith("flanjax.")),
}))
"""


@pytest.mark.slow
def test_a_mixture_feeds_seqios_packing_without_the_trainer():
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_TRAINER],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["segments"] > 1
    assert "decoder_loss_weights" in found["features"]
    parts = {name.split(".")[1] for name in found["ours"]}
    assert parts <= {"data", "errors", "eval", "progress"}
