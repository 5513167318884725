"""Prompts in, records and scores out; the same object in the loop and offline.

    evaluator = Evaluator(model, vocabulary, layout, resolved, store_dir)
    scores = evaluator.run(params, step=0, records_dir=run_dir / "records")
    scores["boolq_held"]["exact_match"]     # Score(value=0.31, n=64, low=..., high=...)

For each batch of prompts: one prefill, then the options' log-probabilities where asked
for, then greedy decoding. Compiled functions take parameters as arguments and all evals
share their shapes, so a second run compiles nothing. Results do not depend on the order
of evals or on what else is in a batch, up to float rounding; greedy ties aside, runs on
the same machine repeat exactly.
"""

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flanjax.data.layout import Layout
from flanjax.data.store import EvalEntry, Example, ResolvedMixture, TaskStore
from flanjax.data.vocabulary import Vocabulary
from flanjax.decode import cache, sample
from flanjax.errors import DataError
from flanjax.eval.batches import PromptBatch, prompt_batches
from flanjax.eval.likelihood import option_logprobs, padded_length
from flanjax.eval.records import Record, rescore, score_record, write_records
from flanjax.eval.stats import Score
from flanjax.eval.suites import EvalSpec, from_json
from flanjax.eval.validation import Validation
from flanjax.models.layers import unstack_layers
from flanjax.train.mesh import BATCH_AXES, batch_sharding, laid_out

Progress = Callable[[str], None]

# A decode step reads all weights for one token of each row; on CPU it costs about as
# much as this many prompt tokens of each row. Only for the time left.
_STEP_COST = 4
_SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class _Eval:
    """One eval, ready to run: what is the same at every step of training."""

    spec: EvalSpec
    prompts: list[np.ndarray]
    options: list[list[list[int]]]
    records: list[Record]
    batches: list[PromptBatch]

    @property
    def longest_option(self) -> int:
        return max((len(o) for row in self.options for o in row), default=0)


class Evaluator:
    """Runs the evals and validation splits of a resolved mixture.

    Args:
      model: from `build_model`.
      vocabulary: of the store.
      layout: as in training; prompts are wrapped and trimmed by it.
      resolved: its `evals` and `validation` are run.
      store_dir: where their examples are.
      mesh: devices that parameters lie on; None for the default device.
      batch_size: prompts at once, rounded up to what the mesh divides.
      max_examples: of each eval at most, besides what its spec says.
      progress: called with a line that tells the time left, every few seconds.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        layout: Layout,
        resolved: ResolvedMixture,
        store_dir: str | Path,
        mesh: Mesh | None = None,
        batch_size: int = 16,
        max_examples: int | None = None,
        progress: Progress = print,
    ):
        self._model, self._vocabulary, self._layout = model, vocabulary, layout
        self._entries, self._store_dir = resolved.evals, Path(store_dir)
        self._mesh, self._max_examples, self._progress = mesh, max_examples, progress
        parts = math.prod(mesh.shape[a] for a in BATCH_AXES) if mesh else 1
        self._batch_size = -(-batch_size // parts) * parts
        scanned = model.config.scan_layers
        self._stepper = cache.unstacked_model(model) if scanned else model
        self._validation = Validation(
            model,
            layout,
            resolved,
            store_dir,
            rows=max(parts, -(-batch_size // 4 // parts) * parts),
            place=self._place,
        )

    def run(
        self, params: Any, step: int, records_dir: str | Path
    ) -> dict[str, dict[str, Score]]:
        """Answers every eval's prompts, writes records and scores; validation losses.

        Args:
          params: of the model, float arrays on the host or on the mesh.
          step: of training; names the directory of the records.
          records_dir: gets `<step>/<eval>.jsonl.zst`.

        Returns:
          Eval -> metric -> Score, exactly what `rescore` gives for the files; and
          "validation/<task>" -> "loss" and "accuracy" -> Score, see `Validation.run`.
        """
        with laid_out(self._mesh):
            return self._run(params, step, Path(records_dir))

    def _run(
        self, params: Any, step: int, records_dir: Path
    ) -> dict[str, dict[str, Score]]:
        stepped = params
        if self._stepper is not self._model:
            stepped = unstack_layers(params)
        work = self._validation.tokens + sum(map(self._work, self._evals))
        clock = _Clock(self._progress, work)
        scores = {}
        for ready in self._evals:
            answers: list[Record] = [{}] * len(ready.records)
            for done, batch in enumerate(ready.batches, start=1):
                for index, answer in self._answer(params, stepped, ready, batch):
                    answers[index] = answer
                clock.line(
                    f"{ready.spec.name} {done}/{len(ready.batches)} batches",
                    self._batch_work(ready, batch),
                )
            records = [
                score_record({**known, **answer})
                for known, answer in zip(ready.records, answers, strict=True)
            ]
            path = records_dir / str(step) / f"{ready.spec.name}.jsonl.zst"
            write_records(path, records)
            scores[ready.spec.name] = rescore(records)
        return scores | self._validation.run(params, clock.line)

    @functools.cached_property
    def _evals(self) -> list[_Eval]:
        return [self._ready(entry) for entry in self._entries]

    @functools.cached_property
    def _new_tokens(self) -> int:
        """Room for new tokens that every eval can do with."""
        options = max((e.longest_option for e in self._evals), default=0)
        decoded = max((e.spec.max_decode_tokens for e in self._evals), default=1)
        return max(decoded, padded_length(options))

    @functools.cached_property
    def _longest_batch(self) -> int:
        return max(b.length for e in self._evals for b in e.batches)

    def _ready(self, entry: EvalEntry) -> _Eval:
        """Reads an eval's examples and makes its prompts and batches."""
        spec = from_json(entry.spec)
        store = TaskStore(self._store_dir / entry.path)
        limits = (len(store), spec.max_examples, self._max_examples)
        examples = store.read(range(min(n for n in limits if n is not None)))
        if not examples:
            raise DataError(
                "an eval without examples",
                where=f"eval '{spec.name}' (task {spec.task}, split {spec.split})",
                fix="give it another split, or take it out of the suite",
            )
        prompts = [self._layout.prompt(example.inputs) for example in examples]
        options = [
            self._options(spec, example.meta.get("choices") or ())
            for example in examples
        ]
        layout = self._layout
        return _Eval(
            spec,
            prompts,
            options,
            [self._record(spec, i, e, prompts[i]) for i, e in enumerate(examples)],
            list(prompt_batches(prompts, self._batch_size, layout.pad_id, layout.kind)),
        )

    def _options(self, spec: EvalSpec, choices: Sequence[str]) -> list[list[int]]:
        """Token ids of the options; none where they are not to be scored."""
        if not spec.score_choices or not choices:
            return []
        room = self._layout.targets_room
        options = [ids[:room] for ids in self._vocabulary.encode_batch(list(choices))]
        return options if all(options) else []

    def _record(
        self, spec: EvalSpec, index: int, example: Example, prompt: np.ndarray
    ) -> Record:
        """What a record says before there is an answer."""
        meta, room = example.meta, self._layout.inputs_room
        truncated = len(example.inputs) > room
        text = meta.get("inputs_pretokenized")
        if truncated or text is None:
            text = self._vocabulary.decode(example.inputs[:room])
        gold = meta.get("targets_pretokenized")
        if gold is None:
            gold = self._vocabulary.decode(example.targets)
        return {
            "eval": spec.name,
            "kind": spec.kind,
            "index": index,
            "row_id": meta.get("row_id"),
            "task": spec.task,
            "template_id": meta.get("template_id"),
            "prompt_type": meta.get("prompt_type"),
            "shot_ids": list(meta.get("shot_ids") or ()),
            "prompt": text,
            "prompt_hash": hashlib.sha256(prompt.astype("<i4").tobytes()).hexdigest()[
                :16
            ],
            "truncated": truncated,
            "gold": list(dict.fromkeys([gold, *(meta.get("references") or ())])),
            "choices": list(meta.get("choices") or ()),
            "extractor": spec.extractor,
            "style": spec.style,
            "scorers": list(spec.scorers),
        }

    def _answer(
        self, params: Any, stepped: Any, ready: _Eval, batch: PromptBatch
    ) -> list[tuple[int, Record]]:
        """Runs one batch; gives (index, fields of the record) of its prompts."""
        room = self._new_tokens
        if self._model.kind == "decoder":
            # The same number of cache slots for all lengths: one compiled loop.
            room += self._longest_batch - batch.length
        features = self._place(batch.features)
        state, logits = sample.start(self._model, params, features, room)
        options = [ready.options[i] for i in batch.rows]
        logprobs: list[list[float]] = [[]] * len(options)
        if any(options):
            logprobs = option_logprobs(self._stepper, stepped, state, logits, options)
        limit = ready.spec.max_decode_tokens
        forced = jnp.zeros((len(batch.rows), self._new_tokens), jnp.int32)
        tokens, _ = sample.greedy_from(
            self._stepper, stepped, state, logits, forced, self._layout.eos_id, limit
        )
        tokens = np.asarray(tokens)[:, :limit]
        return [
            (index, self._read(ready, index, tokens[row], logprobs[row]))
            for row, index in enumerate(batch.indices)
        ]

    def _read(
        self, ready: _Eval, index: int, tokens: np.ndarray, logprobs: list[float]
    ) -> Record:
        """What a record says about the model's answer."""
        text = self._vocabulary.decode(tokens).lstrip()
        output = text
        for stop in ready.spec.stop:
            output = output.split(stop)[0]
        finished = self._layout.eos_id in tokens or len(output) < len(text)
        answer = {"output": output, "finished": bool(finished)}
        if logprobs:
            lengths = [len(option) for option in ready.options[index]]
            answer |= {"choice_logprobs": logprobs, "choice_lengths": lengths}
        return answer

    def _place(self, batch: Any) -> Any:
        if self._mesh is None:
            return jax.tree.map(jnp.asarray, batch)
        return jax.device_put(batch, batch_sharding(self._mesh))

    def _work(self, ready: _Eval) -> int:
        return sum(self._batch_work(ready, batch) for batch in ready.batches)

    def _batch_work(self, ready: _Eval, batch: PromptBatch) -> int:
        steps = ready.spec.max_decode_tokens
        return len(batch.rows) * (batch.length + _STEP_COST * steps)


class _Clock:
    """Says what is done and how long the rest will take, every few seconds."""

    def __init__(
        self,
        progress: Progress,
        total: int,
        now: Callable[[], float] = time.monotonic,
    ):
        self._progress, self._total, self._done, self._now = progress, total, 0, now
        self._start = self._last = now()

    def line(self, what: str, work: int) -> None:
        """Counts `work` as done; prints when the last line is some seconds old."""
        self._done += work
        now = self._now()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            left = (now - self._start) * (self._total / self._done - 1)
            self._progress(f"  evaluating {what}, {left:.0f} s left in all")
            self._last = now
