"""Arithmetic word problems with rationales, made from nothing but a seed.

    question:   Ana buys 9 bags of nuts at 4 dollars and 3 bags of seeds at 9 dollars.
                How many dollars does Ana spend?
    rationale:  The dollars for nuts: 9 * 4 = 36. The dollars for seeds: 3 * 9 = 27.
                The dollars for both: 36 + 27 = 63.
    answer:     63
    expression: 9 * 4 + 3 * 9

Two kinds are mixed: *stories*, where one to four things happen to a pile of objects,
and *situations* of a fixed shape (comparing, sharing, prices, ages, journeys, ...).
All numbers are whole, every division comes out even, and each sentence of a rationale
holds one equation `a op b = c`, so that a program can check it.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NAMES = (
    "Ada Amir Ana Ben Bo Carla Chen Dana Diego Ella Emil Fatima Femi Grace Hana Hugo "
    "Ines Ivan Jada Jonas Kai Kira Leo Lina Luca Maja Marta Mei Milan Nadia Noah Nora "
    "Omar Oscar Priya Quinn Rosa Ruth Sam Sara Sven Tara Theo Tom Uma Vera Wei Yara "
    "Yusuf Zoe"
).split()
THINGS = (
    "apples badges balloons beads books bottles bricks buttons candles cards coins "
    "cherries cookies crayons cups eggs erasers feathers flowers keys kites lemons "
    "magnets marbles muffins nuts oranges peaches pears pencils pens photos plums "
    "postcards ribbons rings seeds shells spoons stamps stickers stones tickets toys"
).split()
CONTAINERS = "bags baskets boxes bowls crates jars packs shelves trays".split()
PLACES = "shop school park library market garden museum farm station kitchen".split()


@dataclass(frozen=True)
class _Step:
    """`left op right = value`, with the words for it in the rationale."""

    left: int
    op: str
    right: int
    words: str

    @property
    def value(self) -> int:
        left, right = self.left, self.right
        return {"+": left + right, "-": left - right, "*": left * right}.get(
            self.op, left // right
        )

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.value}"


@dataclass(frozen=True)
class _Problem:
    question: str
    steps: tuple[_Step, ...]
    expression: str


def problems(
    seed: int, count: int, steps: tuple[int, ...] = (1, 2, 3, 4)
) -> Iterator[dict]:
    """Yields distinct word problems; the same arguments give the same ones.

    Args:
      seed: of the generator. Two seeds may share a problem: cut one stream into
        training and evaluation rows instead, where no two rows are equal.
      count: how many to yield.
      steps: the numbers of arithmetic steps wanted, each 1 to 4, in turn.

    Yields:
      Rows with `row_id`, `question`, `rationale` (one equation per step), `answer`
      (a whole number from 1 to 1000, as text), `expression` (Python syntax, over the
      numbers of the question) and `steps`.

    Raises:
      ValueError: a number of steps that no problem has.
    """
    if not steps or any(number not in (1, 2, 3, 4) for number in steps):
        raise ValueError(f"steps must be among 1, 2, 3, 4, not {steps}")
    rng = random.Random(f"arithmetic {seed}")
    seen: set[str] = set()
    while len(seen) < count:
        wanted = steps[len(seen) % len(steps)]
        problem = _draw(rng, wanted)
        if problem.question in seen:
            continue
        seen.add(problem.question)
        yield {
            "row_id": f"{seed}-{len(seen) - 1}",
            "question": problem.question,
            "rationale": _rationale(rng, problem.steps),
            "answer": str(problem.steps[-1].value),
            "expression": problem.expression,
            "steps": wanted,
        }


def _draw(rng: random.Random, wanted: int) -> _Problem:
    """Draws until a problem of `wanted` steps comes with sensible numbers."""
    while True:
        shapes = [shape for shape in _SITUATIONS if len(shape.steps) == wanted]
        if shapes and rng.random() < 0.7:
            problem = _situation(rng, rng.choice(shapes))
        else:
            problem = _story(rng, wanted)
        values = [step.value for step in problem.steps]
        if min(values) > 0 and max(values) <= 1000:
            return problem


def _rationale(rng: random.Random, steps: tuple[_Step, ...]) -> str:
    """One sentence per step, in one of several manners."""
    manner = rng.randrange(4)
    order = ("First", "Then", "Next", "After that")
    sentences = []
    for number, step in enumerate(steps):
        if manner == 0:
            sentences.append(f"{step}.")
        elif manner == 1:
            sentences.append(f"{step.words[0].upper()}{step.words[1:]}: {step}.")
        elif manner == 2:
            sentences.append(f"{order[number]}, {step.words}: {step}.")
        else:
            sentences.append(f"To find {step.words}, compute {step}.")
    return " ".join(sentences)


# --- stories ------------------------------------------------------------------------

_OPENERS = (
    "{a} has {n} {t}.",
    "{a} starts the day with {n} {t}.",
    "There are {n} {t} in {a}'s bag.",
    "{a} brought {n} {t} from the {p}.",
    "At the {p}, {a} collected {n} {t}.",
    "{a} owns a collection of {n} {t}.",
)
_EVENTS = {
    "+": (
        "{b} gives {a} {k} more.",
        "Then {a} finds {k} more {t}.",
        "{a} buys another {k} {t}.",
        "Later {a} gets {k} {t} from {b}.",
        "A neighbour adds {k} {t}.",
        "In the evening {k} {t} arrive by mail.",
    ),
    "-": (
        "{a} gives {k} {t} to {b}.",
        "{k} of the {t} get lost.",
        "Then {a} uses {k} of them.",
        "{a} sells {k} {t}.",
        "{b} takes {k} of the {t} away.",
        "On the way home {k} {t} are left behind.",
    ),
    "*": (
        "Over the month the number of {t} becomes {k} times as large.",
        "A lucky prize multiplies the {t} of {a} by {k}.",
        "{a} then swaps every one of them for {k} {t}.",
    ),
    "/": (
        "{a} puts all {t} into {k} equal piles and keeps one pile.",
        "{a} shares them fairly, so that each of {k} people has the same number.",
        "The {t} are split evenly over {k} {c}, and {a} takes one of the {c}.",
    ),
}
_STORY_QUESTIONS = (
    "How many {t} does {a} have now?",
    "How many {t} does {a} have in the end?",
    "What is the number of {t} {a} has after this?",
    "With how many {t} does {a} end up?",
)
_STORY_WORDS = {
    "+": "the {t} after adding",
    "-": "the {t} that remain",
    "*": "the {t} after multiplying",
    "/": "the {t} in one part",
}


def _words(rng: random.Random) -> dict[str, str]:
    """Two people a and b, two kinds of things t and u, two containers, a place."""
    a, b = rng.sample(NAMES, 2)
    t, u = rng.sample(THINGS, 2)
    c, d = rng.sample(CONTAINERS, 2)
    return {"a": a, "b": b, "t": t, "u": u, "c": c, "d": d, "p": rng.choice(PLACES)}


def _story(rng: random.Random, wanted: int) -> _Problem:
    words = _words(rng)
    total = rng.randint(2, 60)
    sentences = [rng.choice(_OPENERS).format(n=total, **words)]
    expression, steps, told = str(total), [], set()
    for _ in range(wanted):
        op, k = _next_operation(rng, total, {step.op for step in steps})
        event = rng.choice([form for form in _EVENTS[op] if form not in told])
        told.add(event)
        sentences.append(event.format(k=k, **words))
        expression = f"{expression if not steps else f'({expression})'} {op} {k}"
        steps.append(_Step(total, op, k, _STORY_WORDS[op].format(**words)))
        total = steps[-1].value
    sentences.append(rng.choice(_STORY_QUESTIONS).format(**words))
    return _Problem(" ".join(sentences), tuple(steps), expression)


def _next_operation(rng: random.Random, total: int, used: set[str]) -> tuple[str, int]:
    """An operation that keeps the pile whole, positive and of readable size."""
    divisors = [k for k in range(2, 13) if total % k == 0 and total > k]
    choices = ["+"]
    if total > 3:
        choices.append("-")
    if total <= 60 and "*" not in used:
        choices.append("*")
    if divisors and "/" not in used:
        choices.append("/")
    op = rng.choice(choices)
    if op == "+":
        return op, rng.randint(2, 50)
    if op == "-":
        return op, rng.randint(1, total - 2)
    return op, rng.randint(2, 6) if op == "*" else rng.choice(divisors)


# --- situations of a fixed shape ------------------------------------------------------


@dataclass(frozen=True)
class _Situation:
    """A family of problems.

    Attributes:
      numbers: draws the numbers, by name.
      steps: (left, op, right, words); left and right name a number, or an earlier
        step by its position.
      expression: over the names of the numbers.
      forms: surface forms of the question, over numbers and `_words`.
    """

    numbers: Callable[[Callable[[int, int], int]], dict[str, int]]
    steps: tuple[tuple[str | int, str, str | int, str], ...]
    expression: str
    forms: tuple[str, ...]


def _situation(rng: random.Random, shape: _Situation) -> _Problem:
    words, numbers = _words(rng), shape.numbers(rng.randint)
    steps: list[_Step] = []

    def value(key: str | int) -> int:
        return steps[key].value if isinstance(key, int) else numbers[key]

    for left, op, right, about in shape.steps:
        steps.append(_Step(value(left), op, value(right), about.format(**words)))
    question = rng.choice(shape.forms).format(**words, **numbers)
    return _Problem(question, tuple(steps), shape.expression.format(**numbers))


def _whole_and_part(draw: Callable[[int, int], int]) -> dict[str, int]:
    part = draw(2, 60)
    return {"x": part + draw(1, 50), "y": part}


def _change(draw: Callable[[int, int], int]) -> dict[str, int]:
    x, y = draw(2, 9), draw(2, 9)
    return {"x": x, "y": y, "m": x * y + draw(1, 30)}


def _even(draw: Callable[[int, int], int]) -> dict[str, int]:
    parts = draw(2, 12)
    return {"n": parts * draw(2, 20), "k": parts}


def _regrouped(draw: Callable[[int, int], int]) -> dict[str, int]:
    parts = draw(2, 9)
    return {"x": parts * draw(1, 6), "y": draw(2, 9), "z": parts}


_SITUATIONS = (
    _Situation(
        _whole_and_part,
        (("x", "-", "y", "the difference between the {t}"),),
        "{x} - {y}",
        (
            "{a} has {x} {t} and {b} has {y} {t}. How many more {t} does {a} have?",
            "{b} counted {y} {t}. {a} counted {x} {t}. How many fewer did {b} count?",
            "There are {x} {t} on {a}'s table and {y} on {b}'s. What is the gap?",
            "{a} had some {t}. With {y} more from {b}, {a} has {x}. How many {t} did "
            "{a} have at first?",
            "{a} needs {x} {t} and already has {y}. How many {t} are missing?",
            "Of the {x} {t} in the {p}, {y} are green. How many are not green?",
        ),
    ),
    _Situation(
        lambda draw: {"x": draw(2, 80), "y": draw(2, 80)},
        (("x", "+", "y", "all the {t}"),),
        "{x} + {y}",
        (
            "{a} has {x} {t}. {b} has {y} {t}. How many {t} do they have together?",
            "In the {p} are {x} red {t} and {y} blue {t}. How many {t} are there?",
            "{a} picked {x} {t} before noon and {y} after. How many is that in all?",
            "{a} read {x} pages, and {y} are left. How many pages has the book?",
        ),
    ),
    _Situation(
        lambda draw: {"x": draw(2, 15), "y": draw(2, 20)},
        (("x", "*", "y", "the whole amount"),),
        "{x} * {y}",
        (
            "There are {x} {c} with {y} {t} each. How many {t} are there in all?",
            "{a} fills {x} {c} with {y} {t} each. How many {t} does {a} use?",
            "Every day {a} makes {y} {t}. How many {t} does {a} make in {x} days?",
            "A bus goes {y} miles an hour for {x} hours. How many miles does it go?",
            "A pack of {t} costs {y} dollars. How many dollars do {x} packs cost?",
            "The {p} has {x} rows of {y} seats. How many seats does it have?",
        ),
    ),
    _Situation(
        _even,
        (("n", "/", "k", "the size of an equal part"),),
        "{n} / {k}",
        (
            "{a} divides {n} {t} equally among {k} friends. How many does each get?",
            "{n} {t} are packed into {c}, {k} in each. How many {c} are needed?",
            "{a} lays {n} {t} out in {k} equal rows. How many {t} are in a row?",
            "{k} tickets to the {p} cost {n} dollars. What does one cost, in dollars?",
            "{a} has {n} pages to read in {k} days. How many pages a day is that?",
        ),
    ),
    _Situation(
        _change,
        (
            ("x", "*", "y", "the cost in dollars"),
            ("m", "-", 0, "the money that is left"),
        ),
        "{m} - {x} * {y}",
        (
            "{a} buys {x} bags of {t} for {y} dollars each and pays with {m} dollars. "
            "How many dollars does {a} get back?",
            "At the {p} a box of {t} costs {y} dollars. {a} has {m} dollars and buys "
            "{x} boxes. How much money is left?",
        ),
    ),
    _Situation(
        lambda draw: {"x": draw(3, 30), "y": draw(2, 20), "z": draw(2, 12)},
        (
            ("x", "+", "y", "the age of {b} today"),
            (0, "+", "z", "the age of {b} by then"),
        ),
        "{x} + {y} + {z}",
        (
            "{a} is {x} years old. {b} is {y} years older. How old will {b} be in {z} "
            "years?",
            "{b} is {y} years older than {a}, who is {x}. What will be the age of {b} "
            "{z} years from now?",
        ),
    ),
    _Situation(
        lambda draw: {"x": draw(2, 40), "y": draw(2, 6)},
        (("x", "*", "y", "the {t} of {b}"), ("x", "+", 0, "the total")),
        "{x} + {x} * {y}",
        (
            "{a} has {x} {t}. {b} has {y} times as many. How many {t} do both have?",
            "{b} owns {y} times as many {t} as {a}. If {a} owns {x}, how many {t} do "
            "the two own in total?",
        ),
    ),
    _Situation(
        _regrouped,
        (("x", "*", "y", "all the {t}"), (0, "/", "z", "one equal part")),
        "{x} * {y} / {z}",
        (
            "{a} has {x} {c} with {y} {t} each and spreads all of them evenly over {z} "
            "{d}. How many {t} go into each of the {d}?",
            "The {t} from {x} {c} of {y} are divided equally among {z} children. How "
            "many {t} does a child get?",
        ),
    ),
    _Situation(
        lambda draw: {key: draw(2, 9) for key in "xyzw"},
        (
            ("x", "*", "y", "the dollars for {t}"),
            ("z", "*", "w", "the dollars for {u}"),
            (0, "+", 1, "the dollars for both"),
        ),
        "{x} * {y} + {z} * {w}",
        (
            "{a} buys {x} bags of {t} at {y} dollars and {z} bags of {u} at {w} "
            "dollars. How many dollars does {a} spend?",
            "A bag of {t} costs {y} dollars and a bag of {u} costs {w} dollars. What "
            "do {x} bags of {t} and {z} bags of {u} cost together, in dollars?",
        ),
    ),
)
