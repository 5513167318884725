"""Prepares on Apache Beam: the same jobs and the same bytes, on many machines.

    flanjax data prepare flan2022 --mixtures mixtures.flan2022 --runner DirectRunner \
        --runner_options "--direct_num_workers=2 --direct_running_mode=multi_processing"

The pipeline is Create(task splits) | Reshuffle | ParDo(prepare one, into the store),
and a last step that gathers which of them failed. The machine that starts it
fingerprints the sources, waits for the end, and writes the resolved mixture as always.
Needs `pip install 'flanjax[beam]'`.

Every worker needs
- the store (`--store_dir`) and the data (FLANJAX_DATA) under the same paths as here: a
  shared file system, or a bucket mounted as one. Renaming a directory must be one step
  there (NFS, Lustre, Filestore; of buckets only those with a hierarchical namespace),
- flanjax, the mixture modules and the vocabulary's file installed, in the same version:
  a worker with others says so instead of preparing something else,
- 2 GB of memory for TensorFlow, and room for one task's rows.

Only DirectRunner is run by flanjax's tests. The options below are what Beam documents
for three other runners; nobody has run flanjax on them yet.
- Dataflow: `--runner DataflowRunner --runner_options "--project=P --region=R
  --temp_location=gs://B/tmp --sdk_container_image=IMAGE"`, where IMAGE is made from
  `apache/beam_python3.12_sdk` with the above installed, and mounts the store when a
  worker starts. https://cloud.google.com/dataflow/docs/guides/using-custom-containers
- Flink: `--runner FlinkRunner --runner_options "--flink_master=HOST:8081
  --environment_type=EXTERNAL --environment_config=localhost:50000"` with a worker pool
  (`python -m apache_beam.runners.worker.worker_pool_main`) on each task manager, or
  `--environment_type=DOCKER --environment_config=IMAGE`.
  https://beam.apache.org/documentation/runners/flink/
- Spark: `--runner SparkRunner --runner_options "--spark_master_url=spark://HOST:7077
  --environment_type=LOOPBACK"`, on a cluster with EXTERNAL or DOCKER as for Flink.
  https://beam.apache.org/documentation/runners/spark/
"""

import dataclasses
import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flanjax.data.prepare_task import Job
from flanjax.data.problems import Problem
from flanjax.data.scratch import scratch_directory
from flanjax.errors import ConfigError, DataError

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as error:
    raise ConfigError(
        "Beam is not installed",
        where="--runner",
        fix="pip install 'flanjax[beam]'",
    ) from error

_FAILED = "failed.json"


def run_on_beam(
    jobs: Sequence[Job],
    work: Callable[[Job], dict | Problem],
    setup: Callable[[], None],
    store_dir: str | os.PathLike,
    runner: str,
    options: str,
) -> Iterator[tuple[Job, dict | Problem]]:
    """Runs a pipeline of all jobs to its end; then yields each with its result.

    Args:
      jobs: to do.
      work: makes one directory of the store and returns its info.
      setup: called once in each process that works.
      store_dir: the store, under the same path on every worker.
      runner: name of a Beam runner.
      options: its options, as on a command line.

    Raises:
      ConfigError: no such runner, or bad options.
      DataError: the pipeline ended with an error; what was prepared is kept.
    """
    store = Path(store_dir).absolute()
    with scratch_directory(store) as folder:
        _run(jobs, work, setup, folder / _FAILED, runner, options)
        failed = json.loads((folder / _FAILED).read_text())
    for number, job in enumerate(jobs):
        if str(number) in failed:
            yield job, Problem(**failed[str(number)])
        else:
            yield job, work(job)  # It is there: this reads its info.


def _run(
    jobs: Sequence[Job],
    work: Callable[[Job], dict | Problem],
    setup: Callable[[], None],
    failed: Path,
    runner: str,
    options: str,
) -> None:
    numbered = [(number, dataclasses.asdict(job)) for number, job in enumerate(jobs)]
    try:
        pipeline = beam.Pipeline(
            runner=runner, options=PipelineOptions(shlex.split(options))
        )
    except (ValueError, SystemExit) as error:
        raise ConfigError(
            f"Beam does not take the runner '{runner}' with these options: {error}",
            where=f"--runner_options '{options}'",
            fix="use DirectRunner, DataflowRunner, FlinkRunner or SparkRunner",
        ) from error
    _ = (
        pipeline
        | "task splits" >> beam.Create(numbered)
        | beam.Reshuffle()
        | "prepare" >> beam.ParDo(_Prepare(work, setup))
        | "gather" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
        | "write" >> beam.Map(_write, str(failed))
    )
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:  # Beam raises RuntimeErrors, and what runners raise.
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise DataError(
            f"the Beam pipeline failed: {lines[0]}",
            where=runner,
            fix="look at the runner's log; what was prepared is kept",
        ) from error


class _Prepare(beam.DoFn):
    """Does one job after the other; yields those that fail, by number."""

    def __init__(
        self, work: Callable[[Job], dict | Problem], setup: Callable[[], None]
    ):
        self._work, self._set_up = work, setup

    def setup(self) -> None:
        """Called by Beam before the first element in a process."""
        self._set_up()

    def process(self, element: tuple[int, dict]) -> Iterable[tuple[int, dict]]:
        """Prepares one task split."""
        number, job = element
        result = self._work(Job(**job))
        if isinstance(result, Problem):
            yield number, dataclasses.asdict(result)


def _write(failed: list[tuple[int, dict[str, Any]]], path: str) -> None:
    Path(path).write_text(json.dumps(dict(failed)))
