import ast
import operator
import re

import pytest

from flanjax.data.arithmetic import problems

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Expression):
        return _value(node.body)
    if isinstance(node, ast.Constant):
        return node.value
    return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))


@pytest.fixture(scope="module")
def rows():
    return list(problems(seed=0, count=8000))


def test_answers_follow_from_the_numbers_of_the_question(rows):
    for row in rows:
        assert _value(ast.parse(row["expression"], mode="eval")) == int(row["answer"])
        used = re.findall(r"\d+", row["expression"])
        assert set(used) <= set(re.findall(r"\d+", row["question"])), row


def test_every_step_of_a_rationale_is_a_true_equation(rows):
    for row in rows:
        found = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", row["rationale"])
        assert len(found) == row["steps"]
        assert found[-1][3] == row["answer"]
        for left, sign, right, value in found:
            tree = ast.parse(f"{left} {sign} {right}", mode="eval")
            assert _value(tree) == int(value)


def test_thousands_of_problems_are_distinct_and_use_all_operations(rows):
    assert len({row["question"] for row in rows}) == len(rows)
    assert len({row["row_id"] for row in rows}) == len(rows)
    for steps in (1, 2, 3, 4):
        ours = [row for row in rows if row["steps"] == steps]
        assert len(ours) == len(rows) // 4
        assert {
            sign for row in ours for sign in re.findall("[-+*/]", row["expression"])
        }
    assert len({row["question"].split(" ")[0] for row in rows}) > 50


def test_one_seed_gives_one_list_and_a_longer_list_continues_it(rows):
    assert list(problems(seed=0, count=50)) == rows[:50]
    assert list(problems(seed=1, count=50)) != rows[:50]


def test_unknown_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="among 1, 2, 3, 4"):
        next(problems(seed=0, count=1, steps=(5,)))
