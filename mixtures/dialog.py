r"""Dialog: what is said next, and the same turned around, the dialog before a reply.

    wiki_dialog_zs_opt            dialog -> next turn, the dialog in a drawn format
    wiki_dialog_fs_opt, ..._mix   with exemplars
    wiki_dialog_inverted_zs_opt   reply -> the turns before it, as lines "A: ..."

Rows lie in `<data root>/dialog/<name>/<split>.jsonl` (or another format that
`flanjax.data.located` reads), with the columns of the public files:

  wiki_dialog  utterances: texts, the first an assistant's greeting; title
               https://github.com/google-research/dialog-inpainting
  qrecc        context: texts; question; answer; turn_id; or Context, Question, Answer,
               Turn_no. https://github.com/apple/ml-qrecc
  task_master  utterances: dicts with speaker and text
               https://github.com/google-research-datasets/Taskmaster

TFDS prepares the first two. Which turn of a dialog is the target is drawn as in FLAN,
https://github.com/google-research/FLAN/blob/main/flan/v2/preprocessors.py, but from a
hash of the dialog, so that a row gives the same example each time.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flanjax.data.fewshot import FewShot
from flanjax.data.located import DatasetSource
from flanjax.data.readers import Row
from flanjax.data.tasks import TaskInfo, add_instruction_task
from flanjax.data.templates import TemplateFile

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_PAIRS, _MOST_TURNS = 20, 20
_FIRST_QRECC_TURN = 7
# Rows kept of a split: FLAN caps a dialog task at this many, and WikiDialog has eleven
# million.
_ROWS = 200_000


def _wiki_dialog(row: Row, salt: str) -> Row | None:
    """Questions and answers by turns, after the greeting; the target is an answer."""
    turns = [text.strip() for text in row["utterances"]][1:]
    split = _at_answer(turns, salt)
    return None if split is None else {**split, "title": row["title"].strip()}


def _qrecc(row: Row, salt: str) -> Row | None:
    """Only late rows of a conversation, whose contexts hold the earlier ones."""
    row = {_QRECC_COLUMNS.get(name, name): value for name, value in row.items()}
    if int(row["turn_id"]) < _FIRST_QRECC_TURN:
        return None
    turns = [*row["context"], row["question"], row["answer"]]
    return _at_answer([text.strip() for text in turns], salt)


_QRECC_COLUMNS = {
    "Context": "context",
    "Question": "question",
    "Answer": "answer",
    "Turn_no": "turn_id",
}


def _task_master(row: Row, salt: str) -> Row | None:
    """Any turn but the first is the target."""
    turns = _merged(row["utterances"])
    last = min(len(turns), _MOST_TURNS) - 1
    if last < 1:
        return None
    return _cut(turns, 1 + _draw(turns, salt, last))


def _merged(utterances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Joins what one speaker says in a row: formats take the speakers by turns."""
    turns: list[str] = []
    speaker = None
    for utterance in utterances:
        text = utterance["text"].strip()
        if turns and utterance["speaker"] == speaker:
            turns[-1] = f"{turns[-1]} {text}"
        elif text:
            turns.append(text)
            speaker = utterance["speaker"]
    return turns


def _at_answer(turns: Sequence[str], salt: str) -> Row | None:
    """Cuts before an answer, which are the turns 1, 3, 5, ... of twenty pairs."""
    pairs = min(len(turns) // 2, _MOST_PAIRS)
    return _cut(turns, 2 * _draw(turns, salt, pairs) + 1) if pairs else None


def _draw(turns: Sequence[str], salt: str, count: int) -> int:
    """A number below `count`, evenly over dialogs and always the same for one."""
    text = "\0".join([salt, *turns])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % count


def _cut(turns: Sequence[str], index: int) -> Row | None:
    """Fields of a dialog cut before a turn; None where one of its turns is empty."""
    if not all(turns[: index + 1]):
        return None
    said = [f"{'AB'[n % 2]}: {turn}" for n, turn in enumerate(turns[:index])]
    return {
        "dialog": list(turns[:index]),
        "answer": turns[index],
        "dialog_lines": "\n".join(said),
    }


@dataclass(frozen=True)
class _Dialogs:
    """A set of dialogs; attributes as of `mixtures.muffin_dataset.MuffinDataset`."""

    category: str
    fields: Callable[..., Row | None]  # (row, salt=).
    parts: Mapping[str, str]
    licence: str
    tfds: str | None = None


_SETS = {
    "wiki_dialog": _Dialogs(
        "Conversational Question Answering",
        _wiki_dialog,
        {"train": "train", "validation": "validation"},
        "CC BY-SA 3.0",
        "wiki_dialog/OQ:1.0.0",
    ),
    "qrecc": _Dialogs(
        "Conversational Question Answering",
        _qrecc,
        {"train": "train", "test": "test"},
        "CC BY-SA 3.0",
        "qrecc:1.0.0",
    ),
    "task_master": _Dialogs(
        "Dialog Next Turn Prediction",
        _task_master,
        {"train": "train[:-200]", "validation": "train[-200:]"},
        "CC BY 4.0",
    ),
}


def _register(name: str, inverted: bool) -> tuple[str, ...]:
    dialogs = _SETS[name]
    base = f"{name}_inverted" if inverted else name
    # Salted with the base's name: the two directions cut a dialog at different turns.
    source = DatasetSource(
        f"dialog/{name}",
        dialogs.parts,
        functools.partial(dialogs.fields, salt=base),
        dialogs.tfds,
        limit=_ROWS,
    )
    category = "Dialog Generation" if inverted else dialogs.category
    return add_instruction_task(
        base,
        source,
        TemplateFile(_TEMPLATES / f"dialog_{name}.toml")[base],
        TaskInfo("dialog", name, category, licence=dialogs.licence),
        prompt_types=("zs_opt", "fs_opt"),
        option_style="random",
        mix_shots=FewShot(shots=5),
        answer_field="dialog_lines" if inverted else "answer",
    )


FORWARD = {name: _register(name, inverted=False) for name in _SETS}
INVERTED = {f"{name}_inverted": _register(name, inverted=True) for name in _SETS}
BASES: dict[str, tuple[str, ...]] = FORWARD | INVERTED
