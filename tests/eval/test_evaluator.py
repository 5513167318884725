import functools

import jax
import numpy as np
import pytest

from flanjax.data.layout import Layout, make_layout
from flanjax.data.store import EvalEntry, Example, Member, ResolvedMixture, TaskWriter
from flanjax.data.vocabulary import ByteVocabulary
from flanjax.decode import cache, sample
from flanjax.errors import DataError
from flanjax.eval.batches import BUCKET_TOKENS, prompt_batches
from flanjax.eval.evaluator import Evaluator, _Clock
from flanjax.eval.likelihood import option_logprobs
from flanjax.eval.records import read_records, rescore
from flanjax.eval.suites import EvalSpec, to_json
from flanjax.models.build import build_model, init_params
from flanjax.models.decoder import DecoderConfig
from flanjax.models.layers import unstack_layers
from flanjax.models.t5 import T5Config
from flanjax.train.mesh import MeshConfig, make_mesh, param_shardings

VOCABULARY = ByteVocabulary()
SIZES = {"vocab_size": 384, "emb_dim": 16, "num_heads": 4, "head_dim": 4, "mlp_dim": 32}
CONFIGS = {
    "decoder": DecoderConfig(**SIZES, num_kv_heads=2, num_layers=2),
    "encoder_decoder": T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1),
}
LENGTHS = {"inputs": 96, "targets": 16}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def family(request):
    model = build_model(CONFIGS[request.param])
    params, axes = init_params(model, jax.random.key(0))
    # Larger weights, so that different prompts get different answers.
    params = jax.tree.map(lambda x: 3 * x if x.ndim > 2 else x, params)
    return model, params, axes, make_layout(request.param, LENGTHS, VOCABULARY)


def example(prompt, target, choices=(), row_id="r"):
    meta = {
        "row_id": row_id,
        "template_id": "t/0",
        "prompt_type": "zs_opt",
        "shot_ids": ["s"],
        "choices": list(choices),
        "inputs_pretokenized": prompt,
        "targets_pretokenized": target,
    }
    encode = VOCABULARY.encode
    return Example(np.array(encode(prompt)), np.array(encode(target)), meta)


def write_store(root, evals, validation=()):
    """A store on disk; evals: (spec, examples), validation: (name, examples)."""

    def write(name, examples):
        (root / name).mkdir()
        writer = TaskWriter(root / name)
        for item in examples:
            writer.add(item)
        writer.finish({})
        return name

    return ResolvedMixture(
        version=1,
        name="mixture",
        vocabulary={"spec": "bytes", "fingerprint": "f", "size": 384},
        seed=0,
        passes=1,
        members=(),
        validation=tuple(
            Member(n, 1.0, 1.0, None, len(e), write(n, e), "f", {})
            for n, e in validation
        ),
        evals=tuple(
            EvalEntry(to_json(s), write(s.name, e), "f", len(e)) for s, e in evals
        ),
        files={},
    )


EXAMPLES = [
    example("q" * n + "?", t, ("yes", "no", "it depends"), row_id=f"row:{n}")
    for n, t in [(3, "yes"), (70, "no"), (20, "it depends"), (41, "no"), (5, "yes")]
]
CHOICE = EvalSpec("pick", "t", score_choices=True, max_decode_tokens=6)
TEXT = EvalSpec("open", "t", max_decode_tokens=3, scorers=("f1",), max_examples=4)


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, params, batch):
    return jax.nn.log_softmax(model.apply({"params": params}, batch)[0])


def full_forward(model, params, layout: Layout, prompt, answer):
    """Log-probabilities [len(answer) + 1, vocab] after prompt + answer, uncached."""
    answer = np.asarray(answer, np.int32)
    inputs, outputs = np.zeros((2, 1, 112), np.int32)
    if model.kind == "encoder_decoder":
        inputs[0, : len(prompt)] = prompt
        outputs[0, 1 : len(answer) + 1] = answer
        batch = {
            "encoder_input_tokens": inputs,
            "decoder_input_tokens": outputs,
            "decoder_target_tokens": np.ones_like(outputs),
        }
        first = 0
    else:
        inputs[0, : len(prompt) + len(answer)] = [*prompt, *answer]
        batch, first = {"decoder_input_tokens": inputs}, len(prompt) - 1
    return np.asarray(_forward(model, params, batch))[first : first + len(answer) + 1]


def test_option_log_probabilities_equal_those_of_whole_forward_passes(family):
    model, params, _, layout = family
    prompts = [layout.prompt(e.inputs) for e in EXAMPLES[:3]]
    options = [[[7, 8, 9, 10, 11], [12]], [[4, 4]], [[5], [6, 7], [200, 1, 30]]]
    (batch,) = prompt_batches(prompts, 3, 0, model.kind)
    rows = [options[i] for i in batch.rows]
    state, logits = sample.start(model, params, batch.features, 8)
    stepper, stepped = cache.unstacked_model(model), unstack_layers(params)
    scored = option_logprobs(stepper, stepped, state, logits, rows)
    for row, values in zip(batch.rows, scored, strict=True):
        assert len(values) == len(options[row])
        for option, value in zip(options[row], values, strict=True):
            full = full_forward(model, params, layout, prompts[row], option)
            expected = sum(float(full[t, token]) for t, token in enumerate(option))
            assert value == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    return root, write_store(root, [(CHOICE, EXAMPLES), (TEXT, EXAMPLES)])


@pytest.fixture(scope="module")
def two_at_a_time(family, store, tmp_path_factory):
    """An evaluator that has run once, its scores, and where its records are."""
    model, params, _, layout = family
    directory = tmp_path_factory.mktemp("records")
    evaluator = Evaluator(model, VOCABULARY, layout, store[1], store[0], batch_size=2)
    return evaluator, evaluator.run(params, 7, directory), directory


def records_of(directory, name):
    return list(read_records(directory / "7" / f"{name}.jsonl.zst"))


def assert_same_records(ours, theirs):
    """Equal in everything; log-probabilities up to rounding."""
    for a, b in zip(ours, theirs, strict=True):
        logprobs = a.pop("choice_logprobs", []), b.pop("choice_logprobs", [])
        assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-4)
        assert a == b


def test_answers_are_the_greedy_ones_of_whole_forward_passes(family, two_at_a_time):
    model, params, _, layout = family
    _, scores, directory = two_at_a_time
    for spec, count in ((CHOICE, 5), (TEXT, 4)):
        records = records_of(directory, spec.name)
        assert rescore(records) == scores[spec.name]
        assert len(records) == scores[spec.name]["parse_failures"].n == count
        for record, item in zip(records, EXAMPLES, strict=False):
            answer = []
            for _ in range(spec.max_decode_tokens):
                prompt = layout.prompt(item.inputs)
                full = full_forward(model, params, layout, prompt, answer)
                answer.append(int(np.argmax(full[-1])))
                if answer[-1] == layout.eos_id:
                    break
            assert record["row_id"] == item.meta["row_id"]
            assert record["output"] == VOCABULARY.decode(answer).lstrip()
            assert record["finished"] == (answer[-1] == layout.eos_id)


def test_a_second_run_with_other_parameters_compiles_nothing(
    family, two_at_a_time, tmp_path
):
    compiled = sample.start._cache_size(), sample.greedy_from._cache_size()
    params = jax.tree.map(lambda x: 2 * x, family[1])
    two_at_a_time[0].run(params, 7, tmp_path)
    assert (sample.start._cache_size(), sample.greedy_from._cache_size()) == compiled


def test_records_do_not_depend_on_the_batch_size(
    family, store, two_at_a_time, tmp_path
):
    model, params, _, layout = family
    five = Evaluator(model, VOCABULARY, layout, store[1], store[0], batch_size=5)
    five.run(params, 7, tmp_path)
    for name in ("pick", "open"):
        assert_same_records(
            records_of(tmp_path, name), records_of(two_at_a_time[2], name)
        )


@pytest.mark.slow
def test_a_mesh_gives_the_same_records(family, store, two_at_a_time, tmp_path):
    model, params, axes, layout = family
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, sequence=2))
    sharded = jax.device_put(params, param_shardings(axes, params, mesh))
    evaluator = Evaluator(
        model, VOCABULARY, layout, store[1], store[0], mesh=mesh, batch_size=3
    )
    evaluator.run(sharded, 7, tmp_path)
    for name in ("pick", "open"):
        assert_same_records(
            records_of(tmp_path, name), records_of(two_at_a_time[2], name)
        )


OUTPUTS = {
    "a?": ("yes", "yes", "yes", 1.0),
    "b?": ("The answer is yes.", "The answer is yes.", "yes", 0.0),
    "c?": ("yes\n\nQ: next?\nA: no", "yes", "yes", 1.0),
    "d?": ("\nmaybe", "maybe", None, 0.0),
    "e?": ("", None, None, 0.0),
}


@pytest.fixture
def scripted(monkeypatch):
    """Decoding that gives the answers of OUTPUTS, "" to other prompts."""

    def start(model, params, prompts, room):
        return next(v for k, v in prompts.items() if "tokens" in k), None

    def greedy_from(model, params, state, logits, forced, eos_id, limit):
        tokens = np.zeros(forced.shape, np.int32)
        for row, prompt in enumerate(np.asarray(state)):
            text = OUTPUTS.get(VOCABULARY.decode(prompt), ("",))[0]
            ids = [*VOCABULARY.encode(text), eos_id][: tokens.shape[1]]
            tokens[row, : len(ids)] = ids
        return tokens, None

    monkeypatch.setattr(sample, "start", start)
    monkeypatch.setattr(sample, "greedy_from", greedy_from)


def test_outputs_are_cut_at_stop_strings_read_and_scored(family, tmp_path, scripted):
    model, params, _, layout = family
    spec = EvalSpec(
        "script", "t", extractor="yes_no", max_decode_tokens=24, stop=("\n\n",)
    )
    examples = [example(prompt, "yes") for prompt in OUTPUTS]
    resolved = write_store(tmp_path, [(spec, examples)])
    evaluator = Evaluator(model, VOCABULARY, layout, resolved, tmp_path, batch_size=2)
    scores = evaluator.run(params, 7, tmp_path)["script"]
    for record, (_, strict, flexible, value) in zip(
        records_of(tmp_path, "script"), OUTPUTS.values(), strict=True
    ):
        assert (record["strict"], record["flexible"]) == (strict, flexible)
        assert record["scores"]["exact_match"] == value
        assert record["finished"]
        assert record["gold"] == ["yes"]
    assert scores["exact_match"].value == 0.4
    assert scores["exact_match_flexible"].value == 0.6
    assert scores["parse_failures"].value == 0.4


def test_a_prompt_that_was_cut_says_so_and_shows_what_the_model_saw(
    family, tmp_path, scripted
):
    model, params, _, layout = family
    examples = [example("x" * 200, "a"), example("y", "a")]
    resolved = write_store(tmp_path, [(TEXT, examples)])
    evaluator = Evaluator(model, VOCABULARY, layout, resolved, tmp_path)
    evaluator.run(params, 7, tmp_path)
    cut, whole = records_of(tmp_path, "open")
    assert (cut["truncated"], cut["prompt"]) == (True, "x" * layout.inputs_room)
    assert (whole["truncated"], whole["prompt"]) == (False, "y")
    assert cut["prompt_hash"] != whole["prompt_hash"]


def test_time_left_is_told_every_few_seconds():
    lines, now = [], iter([0, 4, 8, 12, 16])
    clock = _Clock(lines.append, total=8, now=lambda: next(now))
    for _ in range(4):
        clock.line("open", work=2)
    assert lines == [
        "  evaluating open, 8 s left in all",
        "  evaluating open, 0 s left in all",
    ]


def test_an_eval_without_examples_is_refused_by_name(family, tmp_path):
    model, params, _, layout = family
    resolved = write_store(tmp_path, [(TEXT, [])])
    evaluator = Evaluator(model, VOCABULARY, layout, resolved, tmp_path)
    with pytest.raises(DataError, match="eval 'open'"):
        evaluator.run(params, 0, tmp_path)


def test_validation_loss_is_the_mean_over_tokens_of_unpacked_examples(family, tmp_path):
    model, params, _, layout = family
    splits = [("first", EXAMPLES), ("second", EXAMPLES[:1])]
    resolved = write_store(tmp_path, [], splits)
    evaluator = Evaluator(model, VOCABULARY, layout, resolved, tmp_path)
    scores = evaluator.run(params, 0, tmp_path)
    total = tokens = 0
    for name, examples in splits:
        losses = []
        for item in examples:
            target = layout.target(item.targets)
            prompt = layout.prompt(item.inputs)
            full = full_forward(model, params, layout, prompt, target[:-1])
            losses += [-float(full[t, token]) for t, token in enumerate(target)]
        score = scores[f"validation/{name}"]["loss"]
        assert score.n == len(losses)
        assert score.value == pytest.approx(np.mean(losses), rel=1e-5)
        total, tokens = total + sum(losses), tokens + len(losses)
    assert scores["validation/all"]["loss"].value == pytest.approx(
        total / tokens, rel=1e-5
    )


def test_batches_hold_every_prompt_once_in_few_shapes():
    lengths = np.random.default_rng(0).integers(1, 300, 50)
    prompts = [np.full(n, 5, np.int32) for n in lengths]
    batches = list(prompt_batches(prompts, 8, 0, "decoder"))
    assert sorted(i for b in batches for i in b.indices) == list(range(50))
    for batch in batches:
        tokens, rows = batch.features["decoder_input_tokens"], batch.features["lengths"]
        assert tokens.shape == (8, batch.length) and batch.length % BUCKET_TOKENS == 0
        np.testing.assert_array_equal((tokens > 0).sum(axis=1), rows)
        assert batch.length - rows.max() < BUCKET_TOKENS
    assert len({b.length for b in batches}) <= 7
    assert batches[0].indices[0] == int(np.argmax(lengths))
