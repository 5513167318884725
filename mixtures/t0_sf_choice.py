"""T0-SF's datasets with choices: exams, everyday sense, reviews, topics.

Field names are those of the datasets' public versions; see `mixtures.t0_sf_raw`.
"""

from collections.abc import Mapping

from flanjax.data.readers import Row
from mixtures.t0_sf_raw import (
    LETTERS,
    RawDataset,
    bullets,
    candidate,
    choice,
    column,
    in_order_of,
)


def _amazon_polarity(row: Row) -> Row:
    return {
        "title": row["title"].strip(),
        "review": row["content"].strip(),
        "verdict": int(row["label"]),
    }


def _cos_e(row: Row) -> Row:
    options = list(row["choices"])
    return {
        "question": row["question"].strip(),
        "explanation": row["abstractive_explanation"].strip(),
        **choice(options, options.index(row["answer"])),
    }


def _dbpedia(row: Row) -> Row:
    return {
        "title": row["title"].strip(),
        "text": row["content"].strip(),
        "verdict": int(row["label"]),
    }


def _dream(row: Row) -> Row:
    turns = [turn.strip() for turn in row["dialogue"] if turn.strip()]
    options = list(row["choice"])
    return {
        "dialogue": "\n".join(turns),
        "first_turn": turns[0],
        "last_turn": turns[-1],
        "later_turns": "\n".join(turns[1:]),
        "earlier_turns": "\n".join(turns[:-1]),
        "question": row["question"].strip(),
        **choice(options, options.index(row["answer"])),
    }


def _keyed(row: Row) -> Row:
    """Choices with names of their own, and the name of the right one."""
    options = column(row["choices"], "text")
    label = column(row["choices"], "label").index(row["answerKey"])
    return choice(options, label)


def _qasc(row: Row) -> Row:
    chosen = _keyed(row)
    question = row["question"].strip()
    return {
        "question": question,
        "fact1": row["fact1"].strip(),
        "fact2": row["fact2"].strip(),
        "combined": row["combinedfact"].strip(),
        **chosen,
        **candidate(chosen["options"], chosen["label"], question),
    }


def _quail(row: Row) -> Row:
    return {
        "context": row["context"].strip(),
        "question": row["question"].strip(),
        **choice(row["answers"], int(row["correct_answer_id"])),
    }


def _quarel(row: Row) -> Row:
    worlds = row["world_literals"]
    if not isinstance(worlds, Mapping):
        (worlds,) = worlds
    options = [_first(worlds["world1"]), _first(worlds["world2"])]
    return {
        "question": row["question"].strip(),
        **choice(options, int(row["answer_index"])),
    }


def _first(value: str | list[str]) -> str:
    return value if isinstance(value, str) else value[0]


def _quartz(row: Row) -> Row:
    return {
        "question": row["question"].strip(),
        "passage": row["para"].strip(),
        **_keyed(row),
    }


def _race(row: Row) -> Row:
    question = row["question"].strip()
    chosen = choice(row["options"], LETTERS.index(row["answer"]))
    lines = zip(LETTERS, chosen["options"], strict=False)
    return {
        "article": row["article"].strip(),
        "question": question,
        "written_question": "\n".join(
            [
                f"Question: {question}",
                *(f"{letter}) {option}" for letter, option in lines),
                f"Correct: {LETTERS[chosen['label']]}",
            ]
        ),
        **chosen,
        **candidate(chosen["options"], chosen["label"], row["article"] + question),
    }


def _sciq(row: Row) -> Row:
    right = row["correct_answer"].strip()
    wrong = [row[f"distractor{number}"].strip() for number in (1, 2, 3)]
    options = in_order_of([right, *wrong], row["question"])
    return {
        "question": row["question"].strip(),
        "passage": row["support"].strip(),
        **choice(options, options.index(right)),
    }


def _social_i_qa(row: Row) -> Row:
    question = row["question"].strip()
    chosen = choice([row[f"answer{x}"] for x in "ABC"], int(row["label"]) - 1)
    seed = row["context"] + question
    return {
        "context": row["context"].strip(),
        "question": question,
        **chosen,
        **candidate(chosen["options"], chosen["label"], seed),
    }


def _wiki_hop(row: Row) -> Row:
    relation, _, subject = row["query"].partition(" ")
    options = list(row["candidates"])
    return {
        "passages": bullets([" ".join(each.split()) for each in row["supports"]]),
        "relation": relation.replace("_", " "),
        "subject": subject.strip(),
        **choice(options, options.index(row["answer"])),
    }


CHOICE: dict[str, RawDataset] = {
    "amazon_polarity": RawDataset(
        "huggingface:amazon_polarity",
        "unknown",
        ("title", "content", "label"),
        ("title", "review"),
        _amazon_polarity,
    ),
    "cos_e_v1.11": RawDataset(
        "cos_e:0.0.1",
        "BSD 3-Clause",
        ("question", "choices", "answer", "abstractive_explanation"),
        ("question", "explanation", "answer"),
        _cos_e,
    ),
    "dbpedia_14": RawDataset(
        "huggingface:dbpedia_14",
        "CC BY-SA 3.0",
        ("title", "content", "label"),
        ("title", "text"),
        _dbpedia,
    ),
    "dream": RawDataset(
        "huggingface:dream",
        "research only",
        ("dialogue", "question", "choice", "answer"),
        (
            *("dialogue", "first_turn", "last_turn", "later_turns", "earlier_turns"),
            *("question", "answer"),
        ),
        _dream,
    ),
    "qasc": RawDataset(
        "qasc:0.1.0",
        "CC BY 4.0",
        ("question", "choices", "answerKey", "fact1", "fact2", "combinedfact"),
        ("question", "fact1", "fact2", "combined", "answer", "candidate"),
        _qasc,
    ),
    "quail": RawDataset(
        "huggingface:quail",
        "CC BY-NC-SA 4.0",
        ("context", "question", "answers", "correct_answer_id"),
        ("context", "question", "answer"),
        _quail,
    ),
    "quarel": RawDataset(
        "huggingface:quarel",
        "CC BY 4.0",
        ("question", "world_literals", "answer_index"),
        ("question", "answer"),
        _quarel,
    ),
    "quartz": RawDataset(
        "huggingface:quartz",
        "CC BY 4.0",
        ("question", "para", "choices", "answerKey"),
        ("question", "passage", "answer"),
        _quartz,
    ),
    **{
        f"race_{config}": RawDataset(
            f"huggingface:race/{config}",
            "research only",
            ("article", "question", "options", "answer"),
            ("article", "question", "answer", "candidate", "written_question"),
            _race,
            templates="race",
        )
        for config in ("high", "middle")
    },
    "sciq": RawDataset(
        "huggingface:sciq",
        "CC BY-NC 3.0",
        (
            *("question", "support", "correct_answer"),
            *("distractor1", "distractor2", "distractor3"),
        ),
        ("question", "passage", "answer"),
        _sciq,
    ),
    "social_i_qa": RawDataset(
        "huggingface:social_i_qa",
        "unknown",
        ("context", "question", "answerA", "answerB", "answerC", "label"),
        ("context", "question", "answer", "candidate"),
        _social_i_qa,
    ),
    "wiki_hop_original": RawDataset(
        "huggingface:wiki_hop/original",
        "CC BY-SA 3.0",
        ("query", "answer", "candidates", "supports"),
        ("passages", "relation", "subject", "answer"),
        _wiki_hop,
    ),
}
