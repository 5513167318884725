r"""From the rows of the starter archive to the fields that templates name.

    choice()({"question": "Where?", "options": "A. here\nB. there",
              "answer": "B. there"})
    # {"question": "Where?", "options": ["here", "there"], "answer": "there"}

Every function takes the longest text a row may have, in characters, and returns what
a source calls on each row: a dict of fields, or None to leave the row out. Rows are
left out when they are too long, carry no answer, or are broken (an answer that is not
among the options, two equal options).
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Fields = Callable[[Row], Row | None]

_LETTERED = re.compile(r"(?m)^\s*[A-Z]\.\s")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def choice(limit: int = 1000, context: str = "passage") -> Fields:
    """Multiple choice: options in one text, lettered, the answer one of them."""

    def fields(row: Row) -> Row | None:
        options = [part.strip() for part in _LETTERED.split(row["options"])[1:]]
        answer = row.get("answer") or ""
        if isinstance(answer, list):
            answer = answer[0]
        answer = _LETTERED.sub("", answer, count=1).strip()
        question = row["question"].replace("Please choose the correct option", "")
        kept: Row = {"question": question.strip(), "options": options, "answer": answer}
        if context in row:
            kept["passage"] = row[context].strip()
        if answer not in options or len(set(options)) < len(options):
            return None
        return _short(kept, limit)

    return fields


def yes_no(limit: int = 1000, context: str = "passage") -> Fields:
    """Questions answered True/False or yes/no, about a text."""
    words = {"true": "Yes", "yes": "Yes", "false": "No", "no": "No"}

    def fields(row: Row) -> Row | None:
        answer = words.get(str(row["answer"]).lower())
        if answer is None:
            return None
        return _short(
            {
                "passage": row[context].strip(),
                "question": _as_question(row["question"]),
                "options": ["Yes", "No"],
                "answer": answer,
            },
            limit,
        )

    return fields


def abstract_yes_no(limit: int = 1000) -> Fields:
    """PubMedQA: yes/no/maybe, from the last part of the abstract (its results)."""

    def fields(row: Row) -> Row | None:
        parts = re.split(r"(?m)^Context \(\d+\): ", row["passage"])
        passage = " ".join(_SENTENCE_END.split(parts[-1].strip())[-3:])
        kept: Row = {"question": _as_question(row["question"]), "passage": passage}
        kept |= {"options": ["Yes", "No", "Maybe"], "answer": row["answer"].title()}
        return _short(kept, limit) if kept["answer"] in kept["options"] else None

    return fields


def open_answers(limit: int = 1000, answer_limit: int = 40) -> Fields:
    """Questions with a list of accepted answers; the first is the target."""

    def fields(row: Row) -> Row | None:
        answers = [text.strip() for text in row["answer"] if text.strip()]
        if not answers or len(answers[0]) > answer_limit:
            return None
        kept = {"question": _as_question(row["question"]), "answer": answers[0]}
        return _short({**kept, "references": answers}, limit)

    return fields


def shortest_answer(limit: int = 1000, answer_limit: int = 70) -> Fields:
    """TruthfulQA: the shortest of the true answers is the target."""

    def fields(row: Row) -> Row | None:
        answers = sorted({text.strip() for text in row["answer"]}, key=_by_length)
        answers = [text for text in answers if text != "I have no comment"]
        if not answers or len(answers[0]) > answer_limit:
            return None
        kept = {"question": row["question"].strip(), "answer": answers[0]}
        return _short({**kept, "references": answers}, limit)

    return fields


def spaced_text_answer(limit: int = 1000, answer_limit: int = 40) -> Fields:
    """Disfl-QA: undoes the spaces that a tokeniser put around punctuation."""

    def fields(row: Row) -> Row | None:
        if len(row["answer"]) > answer_limit or row["answer"] == "unknown":
            return None
        kept = {key: unspaced(row[key]) for key in ("passage", "question")}
        return _short({**kept, "answer": row["answer"].strip()}, limit)

    return fields


def story_answer(limit: int = 1000, answer_limit: int = 40) -> Fields:
    """NarrativeQA: the sentences of the summary around the answer's first mention."""

    def fields(row: Row) -> Row | None:
        answers = [text.strip().rstrip(".") for text in row["answer"] if text.strip()]
        if not answers or len(answers[0]) > answer_limit:
            return None
        passage = _around(row["passage"], answers[0], limit - 120)
        if passage is None:
            return None
        kept = {"passage": passage, "question": row["question"].strip()}
        return _short({**kept, "answer": answers[0], "references": answers}, limit)

    return fields


def pronoun(limit: int = 1000) -> Fields:
    """WinoBias: who is meant, between the two people of the sentence.

    The pronoun is `he` or `she` by the hash of the sentence, not by the stereotype
    that the row records: the answer follows from the sentence alone.
    """

    def fields(row: Row) -> Row | None:
        text = row["text"].strip()
        found = re.search(r"\[((?!MASK)[^\]]+)\]", text)
        subject = row["pro_stereotyped"] in ("he", "she")
        if found is None or not subject or text.count("[MASK]") != 1:
            return None
        if not found.group(1).lower().startswith("the "):
            return None
        others = re.findall(r"\b[Tt]he (\w+)\b", text.replace(found.group(0), " "))
        if not others:
            return None
        answer, other = found.group(1)[4:], others[0]
        word = ("he", "she")[hashlib.sha256(text.encode()).digest()[0] % 2]
        plain = re.sub(r"\[((?!MASK)[^\]]+)\]", r"\1", text).replace("[MASK]", word)
        options = sorted((answer, other), key=plain.find)
        kept: Row = {"sentence": plain, "pronoun": word}
        kept["options"] = [f"the {name}" for name in options]
        kept["answer"] = f"the {answer}"
        return _short(kept, limit) if answer != other else None

    return fields


def faithful(limit: int = 1000) -> Fields:
    """Factual summary pairs: which of two shortened sentences says what was said."""

    def fields(row: Row) -> Row | None:
        right, wrong = row["correct_sent"].strip(), row["incorrect_sent"].strip()
        first = hashlib.sha256(row["article_sent"].encode()).digest()[0] % 2
        kept = {"passage": row["article_sent"].strip(), "answer": right}
        kept["options"] = [right, wrong] if first else [wrong, right]
        return _short(kept, limit) if right != wrong else None

    return fields


def renamed(limit: int, answer_limit: int, **names: str) -> Fields:
    """Takes columns over under new names; `answer` is limited on its own."""

    def fields(row: Row) -> Row | None:
        kept = {new: " ".join(str(row[old]).split()) for new, old in names.items()}
        if not 0 < len(kept["answer"]) <= answer_limit:
            return None
        return _short(kept, limit)

    return fields


def sentiment(limit: int = 1000) -> Fields:
    """Film reviews: positive or negative."""

    def fields(row: Row) -> Row | None:
        text = re.sub(r"\s*<br\s*/?>\s*", " ", row["text"]).strip()
        answer = {"1": "positive", "0": "negative"}.get(str(row["label"]))
        if answer is None:
            return None
        kept = {"review": text, "options": ["positive", "negative"], "answer": answer}
        return _short(kept, limit)

    return fields


def generic_name(limit: int = 1000) -> Fields:
    """Drug names: a brand and the generic substance in it, where there is only one."""

    def fields(row: Row) -> Row | None:
        names = row["relations"][0]["values"]
        if len(names) != 1 or names[0] == row["key"]:
            return None
        return _short({"brand": row["key"].title(), "answer": names[0]}, limit)

    return fields


def number_answer(limit: int = 1000) -> Fields:
    """ASDiv: problems whose answer is one whole number, asked without the unit."""

    def fields(row: Row) -> Row | None:
        found = re.fullmatch(r"(\d+)( [^\d;:/]*)?", row["answer"].strip())
        if found is None:
            return None
        question = f"{row['passage'].strip()} {row['question'].strip()}"
        return _short({"question": question, "answer": found.group(1)}, limit)

    return fields


def unspaced(text: str) -> str:
    """Undoes the spaces that a tokeniser put around punctuation."""
    text = re.sub(r"(?<=\d) ([.,]) (?=\d)", r"\1", text)
    text = re.sub(r"\s+([.,;:!?)%\]])", r"\1", " ".join(text.split()))
    text = re.sub(r"([(\[])\s+", r"\1", text)
    return re.sub(r"\s*([’'–-])\s*(s\b|\w)", r"\1\2", text)


def _by_length(text: str) -> tuple[int, str]:
    return len(text), text


def _as_question(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith("?") else "?")


def _around(text: str, answer: str, limit: int) -> str | None:
    """Whole sentences around the first mention, alternately after and before it."""
    sentences = _SENTENCE_END.split(" ".join(text.split()))
    mention = re.compile(rf"\b{re.escape(answer)}\b", re.IGNORECASE)
    hits = [i for i, sentence in enumerate(sentences) if mention.search(sentence)]
    if not hits:
        return None
    start, end = hits[0], hits[0] + 1
    while end - start < 4:
        wider = (max(start - 1, 0), end) if (end - start) % 2 else (start, end + 1)
        grown = " ".join(sentences[wider[0] : wider[1]])
        if len(grown) > limit or wider == (start, end) or wider[1] > len(sentences):
            break
        start, end = wider
    return " ".join(sentences[start:end])


def _short(kept: Row, limit: int) -> Row | None:
    """The fields, when none is empty and the text they render is short enough."""
    shown = [v for k, v in kept.items() if k not in ("answer", "references")]
    texts = [text for v in shown for text in (v if isinstance(v, list) else [v])]
    if not kept["answer"] or not all(texts) or sum(map(len, texts)) > limit:
        return None
    return kept
