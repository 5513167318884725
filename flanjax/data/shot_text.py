"""Exemplars before a query, as many as fit.

    header
    inputs_prefix  x  x_y_delimiter  targets_prefix  y  example_separator     (each)
    inputs_prefix  x  x_y_delimiter  targets_prefix (its end trimmed)         (query)

Trailing spaces of the whole, but not newlines, are trimmed.
https://github.com/google-research/FLAN/blob/main/flan/v2/few_shot.py
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flanjax.data.prompt_text import Rendered
from flanjax.data.templates import Template

# Numbers of tokens of several texts.
CountTokens = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True)
class ShotPrompt:
    """A query and exemplars, each with its template."""

    query: Rendered
    template: Template
    shots: Sequence[tuple[Rendered, Template]]


class ShotAssembler:
    """Joins exemplars and query within a budget.

    Args:
      max_tokens: of the whole prompt.
      count_tokens: counts them in texts, many at once.
      separator: after each exemplar; None for that of the query's template.
      count_all: whether header, prefixes and delimiters count too; not with the switch
        "budget_without_delimiters".
    """

    def __init__(
        self,
        max_tokens: int,
        count_tokens: CountTokens,
        separator: str | None = None,
        count_all: bool = True,
    ):
        self._max_tokens, self._count_tokens = max_tokens, count_tokens
        self._separator, self._count_all = separator, count_all

    def join(self, prompts: Sequence[ShotPrompt]) -> list[tuple[str, int]]:
        """Returns the text of each prompt and how many exemplars it kept.

        Kept is the longest run of first exemplars that fits with the query.
        """
        queries = [_query_text(prompt) for prompt in prompts]
        shots = [self._shot_texts(prompt) for prompt in prompts]
        counts = iter(self._count_tokens(self._counted(prompts, queries, shots)))
        joined = []
        for prompt, query, texts in zip(prompts, queries, shots, strict=True):
            used, kept = next(counts), 0
            lengths = list(itertools.islice(counts, len(texts)))
            for length in lengths:
                used += length
                if used > self._max_tokens:
                    break
                kept += 1
            text = prompt.query.header + "".join(texts[:kept]) + query
            joined.append((text.rstrip(" "), kept))
        return joined

    def _shot_texts(self, prompt: ShotPrompt) -> list[str]:
        separator = self._separator or prompt.template.example_separator
        return [
            f"{t.inputs_prefix}{shot.inputs}{t.x_y_delimiter}{t.targets_prefix}"
            f"{shot.targets.strip()}{separator}"
            for shot, t in prompt.shots
        ]

    def _counted(
        self,
        prompts: Sequence[ShotPrompt],
        queries: Sequence[str],
        shots: Sequence[Sequence[str]],
    ) -> list[str]:
        """Returns what counts of each query and of each of its exemplars."""
        counted: list[str] = []
        for prompt, query, texts in zip(prompts, queries, shots, strict=True):
            if self._count_all:
                counted += [prompt.query.header + query, *texts]
            else:
                pairs = [shot.inputs + shot.targets.strip() for shot, _ in prompt.shots]
                counted += [prompt.query.inputs, *pairs]
        return counted


def _query_text(prompt: ShotPrompt) -> str:
    t = prompt.template
    lead = t.targets_prefix.rstrip()
    return f"{t.inputs_prefix}{prompt.query.inputs}{t.x_y_delimiter}{lead}"
