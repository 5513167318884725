"""T0-SF's datasets without choices: passages, plots, processes, tables, trivia.

Field names are those of the datasets' public versions; see `mixtures.t0_sf_raw`.
"""

from flanjax.data.readers import Row
from mixtures.t0_sf_raw import RawDataset, bullets, column, references

# Stands for the answer where a plot holds none; the prompts tell it to the model.
UNANSWERABLE = "unanswerable"

# WIQA: what kind of question -> how the change touches the process.
_WIQA_IMPACT = {
    "INPARA_EFFECT": "It touches one of the steps directly.",
    "EXOGENOUS_EFFECT": "It touches one of the steps indirectly.",
    "OUTOFPARA_DISTRACTOR": "It touches none of the steps.",
}
_WIQA_EFFECTS = {"more": "A", "less": "B", "no_effect": "C"}


def _adversarial_qa(row: Row) -> Row:
    return {
        "title": row["title"],
        "context": row["context"],
        "question": row["question"].strip(),
        **references(column(row["answers"], "text")),
    }


def _app_reviews(row: Row) -> Row:
    stars = int(row["star"])
    return {
        "package": row["package_name"],
        "review": row["review"].strip(),
        "stars": str(stars),
        "verdict": stars - 1,
    }


def _duorc(row: Row) -> Row:
    answers = references([] if row["no_answer"] else row["answers"])
    return {
        "title": row["title"],
        "plot": row["plot"].strip(),
        "question": row["question"].strip(),
        "answer": answers["answer"],
        "answer_or_not": answers["answer"] or UNANSWERABLE,
    }


def _hotpotqa(row: Row) -> Row:
    answers = [each for each in column(row["output"], "answer") if each]
    return {"question": row["input"].strip(), **references(answers)}


def _ropes(row: Row) -> Row:
    return {
        "background": row["background"].strip(),
        "situation": row["situation"].strip(),
        "question": row["question"].strip(),
        **references(column(row["answers"], "text")),
    }


def _web_questions(row: Row) -> Row:
    return {"question": row["question"].strip(), **references(row["answers"])}


def _wiki_bio(row: Row) -> Row | None:
    table = row["input_text"]["table"]
    pairs = zip(column(table, "column_header"), column(table, "content"), strict=True)
    # Pictures and empty cells say nothing about a person.
    facts = [
        (key.replace("_", " ").strip(), " ".join(content.split()))
        for key, content in pairs
        if content.strip() and key not in ("image", "caption", "article_title")
    ]
    if not facts:
        return None
    return {
        "name": row["input_text"]["context"].strip(),
        "facts": bullets([f"{key}: {content}" for key, content in facts]),
        "kinds": ", ".join(dict.fromkeys(key for key, _ in facts)),
        "bio": row["target_text"].strip(),
    }


def _wiki_qa(row: Row) -> Row:
    right = int(row["label"]) == 1
    answer = row["answer"].strip()
    return {
        "topic": row["document_title"].strip(),
        "question": row["question"].strip(),
        "candidate": answer,
        "right_answer": answer if right else "",
        "verdict": int(right),
    }


def _wiqa(row: Row) -> Row:
    steps = [step.strip() for step in row["question_para_step"] if step.strip()]
    effect = row["answer_label"]
    kind = row["metadata_question_type"]
    return {
        "steps": bullets(steps),
        "first_step": steps[0],
        "last_step": steps[-1],
        "later_steps": bullets(steps[1:]),
        "earlier_steps": bullets(steps[:-1]),
        "question": row["question_stem"].strip(),
        "effect": effect.replace("_", " "),
        "effect_letter": _WIQA_EFFECTS[effect],
        "touched": "no" if kind == "OUTOFPARA_DISTRACTOR" else "yes",
        "impact": _WIQA_IMPACT[kind],
    }


_EXTRACTIVE = ("title", "context", "question", "answers")
_EXTRACTED = ("title", "context", "question", "answer")

OPEN: dict[str, RawDataset] = {
    **{
        f"adversarial_qa_{config}": RawDataset(
            f"huggingface:adversarial_qa/{config}",
            "CC BY-SA 3.0",
            _EXTRACTIVE,
            _EXTRACTED,
            _adversarial_qa,
            templates="adversarial_qa",
        )
        for config in ("dbert", "dbidaf", "droberta")
    },
    "app_reviews": RawDataset(
        "huggingface:app_reviews",
        "unknown",
        ("package_name", "review", "star"),
        ("package", "review", "stars"),
        _app_reviews,
    ),
    **{
        f"duorc_{config}": RawDataset(
            f"huggingface:duorc/{config}",
            "MIT",
            ("title", "plot", "question", "answers", "no_answer"),
            ("title", "plot", "question", "answer", "answer_or_not"),
            _duorc,
            templates="duorc",
        )
        for config in ("ParaphraseRC", "SelfRC")
    },
    "kilt_tasks_hotpotqa": RawDataset(
        "huggingface:kilt_tasks/hotpotqa",
        "CC BY-SA 4.0",
        ("input", "output"),
        ("question", "answer"),
        _hotpotqa,
    ),
    "quoref": RawDataset(
        "huggingface:quoref", "CC BY 4.0", _EXTRACTIVE, _EXTRACTED, _adversarial_qa
    ),
    "ropes": RawDataset(
        "huggingface:ropes",
        "CC BY 4.0",
        ("background", "situation", "question", "answers"),
        ("background", "situation", "question", "answer"),
        _ropes,
    ),
    "web_questions": RawDataset(
        "web_questions:1.0.0",
        "CC BY 4.0",
        ("question", "answers"),
        ("question", "answer"),
        _web_questions,
    ),
    "wiki_bio": RawDataset(
        "wiki_bio:0.1.0",
        "CC BY-SA 3.0",
        ("input_text", "target_text"),
        ("name", "facts", "kinds", "bio"),
        _wiki_bio,
    ),
    "wiki_qa": RawDataset(
        "huggingface:wiki_qa",
        "research only",
        ("document_title", "question", "answer", "label"),
        ("topic", "question", "candidate", "right_answer"),
        _wiki_qa,
    ),
    "wiqa": RawDataset(
        "huggingface:wiqa",
        "unknown",
        (
            "question_para_step",
            "question_stem",
            "answer_label",
            "metadata_question_type",
        ),
        (
            *("steps", "first_step", "last_step", "later_steps", "earlier_steps"),
            *("question", "effect", "effect_letter", "touched", "impact"),
        ),
        _wiqa,
    ),
}
