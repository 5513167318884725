"""Compares flanjax with numbers recorded from T5X: `flanjax verify golden DIRECTORY`.

    for row in verify_golden("../shared/golden/t5x"):
        print(row.check, row.max_error, row.tolerance, row.ok)

The directory holds `meta.json` (sizes, schedules) and .npz files: parameters and
batches, and what T5X computed from them in float32. A file that is missing or cannot
be read, and an array that no check looked at, give a failed row that names it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from flanjax.ops import golden_decoding, golden_forward, golden_training
from flanjax.ops.compare import Row
from flanjax.ops.golden_checkpoints import golden_checkpoints
from flanjax.ops.golden_files import Golden

CHECKS: dict[str, Callable[[Golden], Iterator[Row]]] = {
    "parameters": golden_forward.parameters,
    "forward": golden_forward.forward,
    "unpacked view": golden_forward.unpacked,
    "losses": golden_forward.losses,
    "gradients": golden_forward.gradients,
    "relative-position buckets": golden_forward.buckets,
    "schedules": golden_forward.schedules,
    "T5 1.0": golden_forward.t5_1_0,
    "scanned network": golden_forward.scanned,
    "decoder-only": golden_forward.decoder_only,
    "training": golden_training.trajectories,
    "training, scanned network": golden_training.scanned,
    "training, decoder-only": golden_training.decoder_only,
    "decoding": golden_decoding.encoder_decoder,
    "decoding, decoder-only": golden_decoding.decoder_only,
    "checkpoints": golden_checkpoints,
}


def verify_golden(directory: str | Path) -> list[Row]:
    """Runs every check; none depends on another having passed.

    Args:
      directory: as described above; sizes are read from its meta.json.

    Returns:
      One row per comparison, and one for each array that none of them read.
    """
    try:
        golden = Golden.open(directory)
    except (OSError, ValueError) as error:
        return [Row(f"meta.json: {error}", None, None, False)]
    rows: list[Row] = []
    for name, check in CHECKS.items():
        done = len(rows)
        try:
            # The recorded numbers are float32 throughout, on accelerators too.
            with jax.default_matmul_precision("highest"):
                for row in check(golden):
                    rows.append(row)
        except Exception as error:  # Whatever stops a check is a check that failed.
            note = f"{name}: {type(error).__name__}: {error}".splitlines()[0]
            rows.append(Row(note, None, None, False))
        if len(rows) == done:
            rows.append(Row(f"{name}: nothing to compare", None, None, False))
    for name in golden.unread():
        rows.append(Row(f"{name}: not compared", None, None, False))
    return rows
