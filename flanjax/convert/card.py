"""The model card of an exported model, made from what the run left on disk.

    model_card(config, vocabulary, "runs/quickstart")   # README.md as text

Every number in it is in the run's results.json, ledger.json or config; what is not
there is not claimed.
"""

import dataclasses
from pathlib import Path
from typing import Any

from flanjax.data.vocabulary import Vocabulary
from flanjax.models.decoder import DecoderConfig
from flanjax.models.t5 import T5Config
from flanjax.report.run_directory import Run, read_run


def model_card(
    config: T5Config | DecoderConfig,
    vocabulary: Vocabulary | None,
    run_dir: str | Path | None = None,
) -> str:
    """Returns a model card in Markdown.

    Args:
      config: the model's configuration.
      vocabulary: the model's vocabulary; decides how the example wraps its prompt.
      run_dir: run directory with the evidence; None for a card without results.
    """
    run = None if run_dir is None else read_run(run_dir)
    decoder = isinstance(config, DecoderConfig)
    sections = [
        _front_matter(decoder),
        f"# {run.directory.resolve().name if run else 'Exported model'}\n",
        _origin(config, run),
        _example(decoder, vocabulary),
        *([_results(run), _data(run), _configuration(run)] if run else []),
    ]
    return "\n".join(section for section in sections if section)


def _front_matter(decoder: bool) -> str:
    pipeline = "text-generation" if decoder else "text2text-generation"
    return (
        "---\nlibrary_name: transformers\n"
        f"pipeline_tag: {pipeline}\n"
        "tags:\n- flanjax\n- instruction-tuning\n---\n"
    )


def _origin(config: T5Config | DecoderConfig, run: Run | None) -> str:
    kind = "Llama-style decoder" if isinstance(config, DecoderConfig) else "T5"
    skipped = ("lora", "dtype", "scan_layers", "remat_policy", "attention")
    sizes = ", ".join(
        f"{field.name} {getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if field.name not in skipped and getattr(config, field.name) is not None
    )
    lines = [f"{kind}, written by flanjax. {sizes}.\n"]
    if run is None:
        lines.append("The weights were converted, not trained, by flanjax.\n")
    else:
        state, done = run.status.get("state"), run.status.get("steps_done")
        if state is not None and done is not None:
            lines.append(
                f"Fine-tuned for {done} steps; the run's state is '{state}'.\n"
            )
        lines.append(
            "Results hold for the evaluation sets and prompts named below, and say "
            "nothing of safety or of other uses.\n"
        )
    return "\n".join(lines)


def _example(decoder: bool, vocabulary: Vocabulary | None) -> str:
    if vocabulary is None:
        return ""
    model = "AutoModelForCausalLM" if decoder else "AutoModelForSeq2SeqLM"
    question = "Is the sky blue on a clear day? Answer yes or no."
    prompt = f'inputs = tokenizer("{question}", return_tensors="pt")'
    if vocabulary.chat_template is not None:
        prompt = (
            f'messages = [{{"role": "user", "content": "{question}"}}]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            "    messages, add_generation_prompt=True, return_dict=True,\n"
            '    return_tensors="pt")'
        )
    return (
        "## Use\n\n```python\n"
        f"from transformers import AutoTokenizer, {model}\n\n"
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        f'model = {model}.from_pretrained(".")\n'
        f"{prompt}\n"
        "output = model.generate(**inputs, max_new_tokens=32)\n"
        "print(tokenizer.decode(output[0]))\n```\n"
    )


def _results(run: Run) -> str:
    """Returns a table of the first and last evaluation, as results.json has them."""
    if not run.steps:
        return "## Results\n\nThe run has no evaluation results.\n"
    steps = sorted({run.steps[0], run.steps[-1]})
    head = " | ".join(f"step {step}" for step in steps)
    lines = [
        "## Results\n",
        "Value, 95 % interval and number of examples, from results.json.\n",
        f"| evaluation | metric | {head} |",
        "|---|---|" + "---|" * len(steps),
    ]
    for name, metrics in run.results[steps[-1]].items():
        for metric in metrics:
            cells = [_cell(run.results[s].get(name, {}).get(metric)) for s in steps]
            lines.append(f"| {name} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(score: Any) -> str:
    if not isinstance(score, dict) or score.get("value") is None:
        return ""
    text = f"{score['value']:.4g}"
    if score.get("low") is not None and score.get("high") is not None:
        text += f" [{score['low']:.4g}, {score['high']:.4g}]"
    return text + (f", n={score['n']}" if score.get("n") is not None else "")


def _data(run: Run) -> str:
    """Returns the tasks trained on, as ledger.json has them."""
    if not run.ledger:
        return "## Training data\n\nThe run has no ledger.json.\n"
    wanted = (
        "task",
        "share",
        "examples",
        "realised_examples",
        "expected_examples",
        "licence",
    )
    columns = [c for c in wanted if any(c in row for row in run.ledger)]
    lines = [
        "## Training data\n",
        f"Mixture `{run.mixture}`, from ledger.json; licences are the datasets' own.\n",
        f"| {' | '.join(c.replace('_', ' ') for c in columns)} |",
        "|" + "---|" * len(columns),
    ]
    for row in run.ledger:
        cells = [row.get(column, "") for column in columns]
        texts = [f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _configuration(run: Run) -> str:
    if not run.config:
        return ""
    return f"## Configuration\n\n```\n{run.config.strip()}\n```\n"
