"""Reads the answer out of what a model wrote.

    strict("Adam has 3 + 4 = 7. So the answer is 7.", style="cot")        # "7"
    flexible("Sure! That makes $1,234.00", "number")                      # "1234"
    flexible("**B**, because", "choice", choices=("a cat", "a dog"))      # "a dog"

Strict reading asks for exactly the trained form: for direct answers the whole output,
for chain of thought what follows the last closing phrase. Flexible reading finds the
answer in whatever form it stands. Both give None when there is no answer to read,
which counts as wrong and as a parse failure. Golds go through the same functions.
"""

import re
import string
from collections.abc import Callable, Sequence
from decimal import Decimal

# Every closing phrase of the Flan Collection's chain-of-thought templates: "the answer
# is", "the answer:", "the final answer:", "final answer:"; so, therefore or thus before
# them need no mention. Models also write "answer is" and a bare "Answer:".
_CLOSING = re.compile(
    r"\b(?:the\s+answer|(?:the\s+)?final\s+answer)(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE
)
_LOOSE_CLOSING = re.compile(r"\banswer(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)
_NUMBER = re.compile(
    # Not `\w`: in Chinese, Japanese and Thai a number follows its word without a space.
    r"(?<![A-Za-z_.\d])[-\u2212]?(?:[$€£]\s?)?"
    r"(\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)
_YES_NO = re.compile(r"\b(yes|no|true|false)\b", re.IGNORECASE)
# A letter that stands as an option's name: (A), **A**, "A." "A)" "A:", a lone capital
# other than the words A and I, or all there is.
_LETTER = re.compile(
    r"\(([A-Za-z])\)|\*\*\(?([A-Za-z])\)?[.:]?\*\*|(?<![\w'])([A-Z])(?=[.):](?:\s|$))"
    r"|(?<![\w'])([B-HJ-Z])(?![\w'])|^\W*([A-Za-z])\W*$"
)
_ENDS = " \n\t.,;:!?()[]*\"'`\u201c\u201d\u2018\u2019"
_QUOTES = " *\"'`\u201c\u201d\u2018\u2019"


def strict(text: str, style: str = "direct") -> str | None:
    """The answer in exactly the trained form.

    Args:
      text: model output or gold target.
      style: "direct": the stripped text as is; "cot": what follows the closing
        phrase, one final full stop dropped.
    """
    if style == "direct":
        return text.strip() or None
    matches = list(_CLOSING.finditer(text))
    answer = text[matches[-1].end() :].strip() if matches else ""
    return answer.removesuffix(".").rstrip() or None


def flexible(
    text: str, extractor: str, *, style: str = "direct", choices: Sequence[str] = ()
) -> str | None:
    """The answer in whatever form it stands, in a canonical spelling.

    Args:
      text: model output or gold target.
      extractor: a key of EXTRACTORS.
      style: "cot" reads after the last closing phrase, else the last answer in the
        text; "direct" the first answer, in the first paragraph if there is one.
      choices: the options' target texts, for "choice".
    """
    text = text.strip()
    paragraph = text.split("\n\n")[0]
    if style == "cot":
        ends = [match.end() for match in _LOOSE_CLOSING.finditer(text)]
        places = [(text[end:], False) for end in ends[-1:]] + [(text, True)]
    else:
        ends = [match.end() for match in _LOOSE_CLOSING.finditer(paragraph)]
        places = [(paragraph[end:], False) for end in ends[:1]]
        places += [(paragraph, False), (text, False)]
    found = (EXTRACTORS[extractor](place, choices, last) for place, last in places)
    return next((answer for answer in found if answer is not None), None)


def _number(text: str, choices: Sequence[str], last: bool) -> str | None:
    """First or last number without $ , % and trailing .0: "$1,234.50" -> "1234.5"."""
    matches = list(_NUMBER.finditer(text))
    if not matches:
        return None
    match = matches[-1 if last else 0]
    value = Decimal(match.group(1).replace(",", ""))
    value = -value if match.group()[0] in "-\u2212" else value
    whole = value == value.to_integral_value()
    return str(int(value)) if whole else f"{value.normalize():f}"


def _yes_no(text: str, choices: Sequence[str], last: bool) -> str | None:
    """First or last yes/no (true/false) anywhere: "No, it is not" -> "no"."""
    words = _YES_NO.findall(text)
    if not words:
        return None
    return "yes" if words[-1 if last else 0].lower() in ("yes", "true") else "no"


def _text(text: str, choices: Sequence[str], last: bool) -> str | None:
    """First (or last) line without label ("A:"), quotes and final full stop."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    line = lines[-1 if last else 0].removeprefix("A:")
    return line.strip(_QUOTES).removesuffix(".").strip(_QUOTES) or None


def _choice(text: str, choices: Sequence[str], last: bool) -> str | None:
    """The option meant, spelt as in `choices`; a bare letter when there are none.

    In order: the first line is an option; an option's text occurs (not looked for
    when options are letters themselves); an option's letter stands in the text.
    """
    names = {_plain(choice): choice for choice in reversed(choices)}
    line = _plain(_text(text, choices, last) or "")
    if line in names:
        return names[line]
    lettered = all(len(name) == 1 and name.isalpha() for name in names)
    if not lettered:
        longest_first = sorted(filter(None, names), key=len, reverse=True)
        any_name = "|".join(map(re.escape, longest_first))
        mentions = re.findall(rf"(?<!\w)(?:{any_name})(?!\w)", text.casefold())
        if mentions:
            return names[mentions[-1 if last else 0]]
    by_letter = names
    if not (lettered and names):
        letters = string.ascii_lowercase
        by_letter = dict(zip(letters, choices or letters.upper(), strict=False))
    found = ["".join(filter(None, m.groups())).lower() for m in _LETTER.finditer(text)]
    found = [letter for letter in found if letter in by_letter]
    return by_letter[found[-1 if last else 0]] if found else None


def _plain(text: str) -> str:
    """Case-folded, without punctuation at the ends: "(A)." -> "a"."""
    return text.casefold().strip(_ENDS) or text.strip()


EXTRACTORS: dict[str, Callable[[str, Sequence[str], bool], str | None]] = {
    "text": _text,
    "number": _number,
    "choice": _choice,
    "yes_no": _yes_no,
}
