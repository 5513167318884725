"""The data engine and SeqIO side by side, on the same tasks: one command, one table.

    python tests/bench/data_scale.py [--tasks 20 200 1836] [--rows 40] [--no_seqio]

Synthetic tasks with FLAN-like lengths (inputs of mean 150, targets of mean 20) are
written once, as a flanjax store and as the TFRecord files that SeqIO caches its tasks
in; there are as many examples in few tasks as in many, so that only the number of tasks
differs. Each side then runs in a fresh process: from process start to the first packed
batch (seconds, and processor seconds, which a busy machine does not change), memory at
rest, and packed examples a second. Neither sees a tokenizer. flanjax is measured in
several rounds, the numbers of tasks taking turns: of start and memory the worst is
printed, of speeds the best, since neighbours only ever slow a round down. SeqIO runs
once and is stopped after `--seqio_seconds`; what it had done by then is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from plan_speed import draw_lengths

LENGTHS = {"inputs": 1024, "targets": 256}
BATCH_SIZE = 32
HERE = Path(__file__).resolve()
COLUMNS = (
    ("side", "{}"),
    ("tasks", "{:,}"),
    ("build s", "{:.1f}"),
    ("first batch s", "{:.1f}"),
    ("CPU s", "{:.1f}"),
    ("MB at rest", "{:,.0f}"),
    ("planned/s", "{:,.0f}"),
    ("packed/s", "{:,.0f}"),
    ("CPU us/example", "{:.1f}"),
    ("growth", "{:+.0%}"),
    ("fill", "{:.1%}"),
    ("note", "{}"),
)


def examples(task: int, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids of a task's examples."""
    random = np.random.default_rng([task, 1])
    return [
        (random.integers(3, 32_000, n, np.int32), random.integers(3, 32_000, m, "i4"))
        for n, m in draw_lengths(rows, task)
    ]


def write_store(folder: Path, tasks: int, rows: int) -> Path:
    """Writes a store with a resolved mixture of `tasks` equal tasks; returns its path.

    The metadata is as long as real one, of which the two texts are the most.
    """
    from flanjax.data.store import (
        STORE_VERSION,
        Example,
        Member,
        ResolvedMixture,
        TaskWriter,
    )

    members = []
    for task in range(tasks):
        name = f"task{task:04}"
        path = f"tasks/{name}/train-{task:012x}"
        (folder / path).mkdir(parents=True)
        writer = TaskWriter(folder / path)
        for row, (inputs, targets) in enumerate(examples(task, rows)):
            texts = [" ".join(map(str, ids)) for ids in (inputs, targets)]
            meta = {"row_id": f"{name}.jsonl:{row}", "template_id": f"{name}/3"}
            keys = ("inputs_pretokenized", "targets_pretokenized")
            meta |= dict(zip(keys, texts, strict=True))
            writer.add(Example(inputs, targets, meta))
        info = writer.finish({"name": name, "collection": "synthetic"})
        member = Member(name, 1.0, 1 / tasks, None, rows, path, f"{task:012x}", info)
        members.append(member)
    resolved = ResolvedMixture(
        version=STORE_VERSION,
        name="bench",
        vocabulary={"spec": "none", "fingerprint": "none", "size": 32_000},
        seed=0,
        passes=1,
        members=tuple(members),
        validation=(),
        evals=(),
        files={},
    )
    resolved.save(folder / "mixtures" / "bench.json")
    return folder / "mixtures" / "bench.json"


def measure_flanjax(folder: Path, started: float, seconds: float) -> dict:
    """Runs in a process of its own, which began at `started`."""
    from flanjax.data.guards import check_lengths
    from flanjax.data.layout import Layout
    from flanjax.data.loader import make_loader, make_plan
    from flanjax.data.store import ResolvedMixture

    resolved = ResolvedMixture.load(folder / "mixtures" / "bench.json")
    layout = Layout("encoder_decoder", *LENGTHS.values())
    check_lengths(resolved, folder, layout, threshold=1)
    plan = make_plan(resolved, folder, layout, seed=0)
    with make_loader(resolved, folder, layout, BATCH_SIZE, 0, plan=plan) as loader:
        next(loader)
        result = {"first batch s": time.time() - started, "CPU s": time.process_time()}
        time.sleep(1)
        result["MB at rest"] = resident()
        result |= measure_batches(loader, seconds)
    count, number, start = 0, 10_000, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds / 2:
        count += len(plan.block(number).members)
        number += 1
    return result | {"planned/s": count / spent}


def measure_batches(batches: Iterator, seconds: float) -> dict:
    """Examples a second, processor time of all threads for each, and fill.

    The processor time is the least of ten windows: neighbours only ever add to it.
    """
    count, used, rows, windows = 0, 0, 0, []
    start = time.perf_counter()
    for window in range(1, 11):
        before, processor = count, time.process_time()
        while (spent := time.perf_counter() - start) < seconds * window / 10:
            batch = next(batches)
            segments = getattr(batch, "features", batch)["encoder_segment_ids"]
            count += int(segments.max(axis=1).sum())
            used += int((segments > 0).sum())
            rows += BATCH_SIZE
        if count > before:
            windows.append((time.process_time() - processor) / (count - before))
    return {
        "packed/s": count / spent,
        "CPU us/example": min(windows) * 1e6,
        "fill": used / rows / LENGTHS["inputs"],
    }


def write_seqio(folder: Path, tasks: int, rows: int) -> None:
    """Writes the same examples as SeqIO caches a task: TFRecord files of tf.Example."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    (folder / "seqio").mkdir()
    for task in range(tasks):
        with tf.io.TFRecordWriter(str(folder / f"seqio/{task:04}.tfrecord")) as writer:
            for inputs, targets in examples(task, rows):
                writer.write(_tf_example(tf, inputs=inputs, targets=targets))


def _tf_example(tf, **features: np.ndarray) -> bytes:
    feature = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=ids))
        for name, ids in features.items()
    }
    return tf.train.Example(
        features=tf.train.Features(feature=feature)
    ).SerializeToString()


def measure_seqio(folder: Path, started: float, seconds: float) -> dict:
    """SeqIO's mixture of the same tasks, shuffled, repeated and packed as T5X does."""
    import seqio
    import tensorflow as tf

    vocabulary = seqio.PassThroughVocabulary(32_000, eos_id=1)
    features = dict.fromkeys(LENGTHS, seqio.Feature(vocabulary, add_eos=True))
    names = []
    for path in sorted((folder / "seqio").iterdir()):
        source = seqio.TFExampleDataSource(
            {"train": str(path)},
            {name: tf.io.VarLenFeature(tf.int64) for name in LENGTHS},
        )
        steps = [_dense, seqio.preprocessors.append_eos_after_trim]
        seqio.TaskRegistry.add(
            path.stem, source, preprocessors=steps, output_features=features
        )
        names.append(path.stem)
    seqio.MixtureRegistry.add("bench", [(name, 1.0) for name in names])
    imported = time.time()
    dataset = seqio.get_dataset(
        "bench",
        LENGTHS,
        dataset_split="train",
        shuffle=True,
        seed=0,
        feature_converter=seqio.EncDecFeatureConverter(pack=True),
        num_epochs=None,
        use_cached=False,
    )
    iterator = dataset.batch(BATCH_SIZE).as_numpy_iterator()
    result = {"build s": time.time() - imported}
    _say(result)
    next(iterator)
    result |= {"first batch s": time.time() - started, "CPU s": time.process_time()}
    result["MB at rest"] = resident()
    _say(result)
    return result | measure_batches(iterator, seconds)


def _dense(dataset):
    """Variable-length features are read as sparse tensors."""
    import tensorflow as tf

    return dataset.map(
        lambda example: {
            name: tf.cast(tf.sparse.to_dense(value), tf.int32)
            for name, value in example.items()
        }
    )


def _say(result: dict) -> None:
    """What is known so far, should the process be stopped."""
    print(json.dumps(_plain(result)), flush=True)


def _plain(result: dict) -> dict[str, float]:
    return {name: float(value) for name, value in result.items()}


def resident() -> float:
    """Memory of this process in MB that is resident now."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


SIDES = {"flanjax": measure_flanjax, "SeqIO": measure_seqio}


def run_side(side: str, folder: Path, seconds: float, limit: float) -> dict:
    """Runs one side in a fresh process; what it printed last is its result."""
    command = [sys.executable, str(HERE), "--measure", side, str(folder)]
    command += ["--seconds", str(seconds), "--started", str(time.time())]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        note = ""
        try:
            if process.wait(limit):
                err.seek(0)
                raise SystemExit(f"{side} failed:\n{err.read()[-3000:]}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            note = f"stopped after {limit:.0f} s"
        out.seek(0)
        lines = out.read().splitlines()
    found = json.loads(lines[-1]) if lines else {}
    return {"side": side, "note": note, **found}


# Of several rounds, the worst of what a user waits for and the best of what the noise
# of a shared machine can only make worse.
BEST_OF_ROUNDS = {"planned/s": max, "packed/s": max, "CPU us/example": min}


def merged(rounds: list[dict]) -> dict:
    """Returns one row for several rounds of the same measurement."""
    return {
        name: value
        if isinstance(value, str)
        else BEST_OF_ROUNDS.get(name, max)(each[name] for each in rounds)
        for name, value in rounds[0].items()
    }


def print_table(rows: list[dict]) -> None:
    """Prints results one below the other; a dash is what was not reached."""
    cells = [[name for name, _ in COLUMNS]]
    for row in rows:
        cells.append(
            [form.format(row[name]) if name in row else "-" for name, form in COLUMNS]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        pairs = zip(line, widths, strict=True)
        print("  ".join(cell.rjust(width) for cell, width in pairs))


def main() -> None:
    """Makes the tasks, runs both sides and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[20, 200, 1836])
    parser.add_argument(
        "--rows", type=int, default=40, help="examples of a task where they are most"
    )
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of flanjax")
    parser.add_argument("--seqio_seconds", type=float, default=300)
    parser.add_argument("--no_seqio", action="store_true")
    parser.add_argument("--quick", action="store_true", help="smoke run of flanjax")
    parser.add_argument("--measure", nargs=2, metavar=("SIDE", "FOLDER"))
    parser.add_argument("--started", type=float)
    args = parser.parse_args()
    if args.measure:
        side, folder = args.measure
        _say(SIDES[side](Path(folder), args.started, args.seconds))
        return
    if args.quick:
        args.tasks, args.rows, args.seconds, args.no_seqio = [20], 10, 0.2, True
        args.rounds = 1
    with tempfile.TemporaryDirectory() as root:
        results = _flanjax(args, Path(root))
        if not args.no_seqio:
            results += _seqio(args, Path(root))
    print_table(results)


def _flanjax(args: argparse.Namespace, root: Path) -> list[dict]:
    for tasks in args.tasks:
        (root / str(tasks)).mkdir()
        write_store(root / str(tasks), tasks, args.rows * max(args.tasks) // tasks)
    rounds: dict[int, list[dict]] = {tasks: [] for tasks in args.tasks}
    for number in range(args.rounds):
        for tasks in args.tasks:
            found = run_side("flanjax", root / str(tasks), args.seconds, 300)
            rounds[tasks].append(found)
        print(f"flanjax, round {number + 1} of {args.rounds}: done", file=sys.stderr)
    rows = [{**merged(found), "tasks": tasks} for tasks, found in rounds.items()]
    for row in rows:
        row["growth"] = row["CPU us/example"] / rows[0]["CPU us/example"] - 1
    return rows


def _seqio(args: argparse.Namespace, root: Path) -> list[dict]:
    rows = []
    for tasks in args.tasks:
        folder = root / str(tasks)
        write_seqio(folder, tasks, args.rows * max(args.tasks) // tasks)
        found = run_side("SeqIO", folder, args.seconds, args.seqio_seconds)
        rows.append({**found, "tasks": tasks})
        print(f"SeqIO, {tasks} tasks: done", file=sys.stderr)
    return rows


if __name__ == "__main__":
    main()
