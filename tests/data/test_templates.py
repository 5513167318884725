"""Templates are checked when read, and every mistake is named by file and line."""

import pytest

from flanjax.data.templates import (
    TemplateFile,
    check_fields,
    check_no_options,
    load_templates,
    parse,
)
from flanjax.errors import DataError

GOOD = '''\
[boolq]
x_y_delimiter = "\\n"

[[boolq.templates]]
inputs = "{passage}\\n\\nIs it so that {question}?\\n\\n{options_}"
targets = "{answer}"

[[boolq.templates]]
# A text over several lines, with what looks like keys in it.
inputs = """
inputs = {passage}
[[boolq.templates]]
{options_}
{question}"""
targets = "{answer}"
targets_prefix = "A: "
x_y_delimiter = " "

[[other.templates]]
inputs = "Set {{{passage}}}"
targets = "{answer}"
prompt_types = ["zs_opt"]
'''


def _file(tmp_path, text=GOOD):
    path = tmp_path / "templates.toml"
    path.write_text(text)
    return path


def test_templates_have_ids_places_and_the_group_s_defaults(tmp_path):
    path = _file(tmp_path)
    first, second = load_templates(path)["boolq"]
    (other,) = load_templates(path)["other"]
    assert (first.id, second.id, other.id) == ("boolq/0", "boolq/1", "other/0")
    assert first.where == f"{path}:4" and second.where == f"{path}:8"
    assert other.where == f"{path}:19"
    assert (first.x_y_delimiter, second.x_y_delimiter) == ("\n", " ")
    assert first.example_separator == "\n\n\n"
    assert first.fields == ("passage", "question", "options_", "answer")
    assert other.prompt_types == ("zs_opt",)


def test_a_doubled_brace_is_a_brace():
    assert parse("Set {{{a}}} {b}") == [("Set {", "a"), ("} ", "b"), ("", None)]


def test_a_group_is_looked_up_only_when_loaded(tmp_path):
    group = TemplateFile(tmp_path / "templates.toml")["bolq"]
    with pytest.raises(DataError, match="no such template file"):
        group.load()
    _file(tmp_path)
    with pytest.raises(DataError, match="Did you mean 'boolq'"):
        group.load()


def test_the_hash_follows_the_texts_and_not_the_place(tmp_path):
    before = load_templates(_file(tmp_path))["boolq"]
    moved = load_templates(_file(tmp_path, "# Comment.\n" + GOOD))["boolq"]
    changed = load_templates(_file(tmp_path, GOOD.replace("A: ", "B: ")))["boolq"]
    assert [t.hash for t in before] == [t.hash for t in moved]
    assert before[0].hash == changed[0].hash and before[1].hash != changed[1].hash


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('targets_prefix = "A: "', 'target_prefix = "A: "', 16, "'targets_prefix'"),
        ('targets = "{answer}"\n\n[[b', "\n[[b", 4, "boolq/0 has no targets"),
        ("{question}?", "{question?", 5, "unmatched '{' near"),
        ("{passage}\\n", "passage}\\n", 5, "unmatched '}' near"),
        ('targets_prefix = "A: "', "targets_prefix = 3", 16, "not a text"),
        ('"A: "', '"{answer}: "', 16, "literal text"),
        ('["zs_opt"]', '["zs_options"]', 22, "list some of"),
        ('x_y_delimiter = "\\n"', 'delimiter = "\\n"', 2, "unknown key 'delimiter'"),
        ("[[other.templates]]", "[[other.template]]", 19, "has no templates"),
        ('targets_prefix = "A: "', "targets_prefix = A", 16, "not valid TOML"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(tmp_path, old, new, line, message):
    path = _file(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        load_templates(path)
    assert f"{path}:{line}\n" in str(error.value)
    assert message in str(error.value)
    assert error.value.exit_code == 3


def test_an_unknown_field_is_named_with_the_nearest_one(tmp_path):
    templates = load_templates(_file(tmp_path))["boolq"]
    with pytest.raises(DataError, match="unknown field 'passage'") as error:
        check_fields(templates, ["pasage", "question", "answer"], "boolq.jsonl")
    assert "Did you mean 'pasage'" in str(error.value)
    assert templates[0].where in str(error.value) and "boolq.jsonl" in str(error.value)


def test_without_options_the_field_and_newlines_before_it_are_gone(tmp_path):
    first, second = load_templates(_file(tmp_path))["boolq"]
    assert first.without_options().inputs == "{passage}\n\nIs it so that {question}?"
    assert second.without_options().inputs.endswith("[[boolq.templates]]\n{question}")
    assert not first.without_options().shows_options and first.shows_options
    assert first.without_options().hash != first.hash


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('targets = "{answer}"', 'targets = "{options_}"', "shows options"),
        ("{question}?", "{options}?", "shows options"),
    ],
)
def test_options_that_would_stay_in_a_no_option_form_are_an_error(
    tmp_path, old, new, message
):
    path = _file(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as error:
        load_templates(path)["boolq"][0].without_options()
    assert f"{path}:4" in str(error.value)


def test_fields_declared_to_hold_options_are_an_error_in_a_no_option_form(tmp_path):
    template = load_templates(_file(tmp_path))["boolq"][0].without_options()
    check_no_options(template, ("choices_text",))
    with pytest.raises(DataError, match="field 'passage'"):
        check_no_options(template, ("choices_text", "passage"))


def test_a_template_that_is_only_options_has_no_no_option_form(tmp_path):
    path = _file(tmp_path, '[[a.templates]]\ninputs="{options_}"\ntargets="{answer}"')
    with pytest.raises(DataError, match="empty without its options"):
        load_templates(path)["a"][0].without_options()


def test_a_header_belongs_to_few_shot_forms_and_may_hold_fields(tmp_path):
    text = GOOD.replace(
        'x_y_delimiter = "\\n"\n',
        'x_y_delimiter = "\\n"\nheader = "On {topic}:\\n"\nin_template_mix = false\n',
    ).replace('targets_prefix = "A: "', 'header = ""\nin_template_mix = true')
    first, second = load_templates(_file(tmp_path, text))["boolq"]
    assert first.header == "On {topic}:\n" and "topic" in first.fields
    assert second.header == "" and "topic" not in second.fields
    assert (first.in_template_mix, second.in_template_mix) == (False, True)
    before = load_templates(_file(tmp_path))["boolq"]
    assert before[0].header == "" and before[0].in_template_mix
    assert before[0].hash != first.hash


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('header = "{options_}"', "a header cannot hold"),
        ('header = "{topic"', "header: unmatched '{'"),
        ("header = 3", "'header' is not a text"),
        ('in_template_mix = "no"', "bad in_template_mix 'no'"),
        ('heading = "x"', "Did you mean 'header'"),
    ],
)
def test_bad_headers_and_mixes_are_named_by_line(tmp_path, line, message):
    path = _file(tmp_path, GOOD.replace('x_y_delimiter = "\\n"', line))
    with pytest.raises(DataError, match=message) as error:
        load_templates(path)
    assert f"{path}:2" in str(error.value)
