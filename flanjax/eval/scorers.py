"""Compares an answer with its references: pure functions of strings.

    exact_match("Paris", ["Paris", "the city of Paris"])    # 1.0
    exact_match_flexible("the paris.", ["Paris"])           # 1.0
    f1("in Paris, France", ["Paris"])                       # 0.5

Any reference may match; the best one counts. None, no answer found, scores 0.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, one space.

    Unlike SQuAD's, an answer of nothing but an article ("A") keeps it.
    https://rajpurkar.github.io/SQuAD-explorer/ (evaluate-v2.0.py)
    """
    plain = " ".join(text.lower().translate(_PUNCTUATION).split())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split()) or plain


def exact_match(answer: str | None, references: Sequence[str]) -> float:
    """1 when the answer is a reference, character by character after stripping."""
    return float(
        answer is not None and answer.strip() in {r.strip() for r in references}
    )


def exact_match_flexible(answer: str | None, references: Sequence[str]) -> float:
    """1 when answer and a reference are equal after `normalize`, or as numbers."""
    return float(answer is not None and any(_same(answer, r) for r in references))


def number_match(answer: str | None, references: Sequence[str]) -> float:
    """1 when the answer and a reference are the same number ("7.0" and "7")."""
    value = _as_number(answer or "")
    return float(value is not None and value in map(_as_number, references))


def f1(answer: str | None, references: Sequence[str]) -> float:
    """Best token F1 against a reference, both normalised as SQuAD does."""
    return max((_token_f1(answer or "", r) for r in references), default=0.0)


def choice_accuracy(logprobs: Sequence[float], gold: int) -> float:
    """1 when the gold option has the highest log-probability; the first of a tie."""
    return float(max(range(len(logprobs)), key=lambda i: logprobs[i]) == gold)


def _same(answer: str, reference: str) -> bool:
    number = _as_number(reference)
    # Dropping punctuation would make 1.5 and 15, or -3 and 3, the same.
    if number is not None:
        return _as_number(answer) == number
    return normalize(answer) == normalize(reference)


def _as_number(text: str) -> Decimal | None:
    try:
        value = Decimal(re.sub(r"[$€£,%\s]", "", text).removesuffix("."))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _token_f1(answer: str, reference: str) -> float:
    ours, theirs = normalize(answer).split(), normalize(reference).split()
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


SCORERS: dict[str, Callable[[str | None, Sequence[str]], float]] = {
    "exact_match": exact_match,
    "exact_match_flexible": exact_match_flexible,
    "number_match": number_match,
    "f1": f1,
}
