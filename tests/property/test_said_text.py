"""What a message said stays marked through any chain of a template's operations.

A message holds other letters than the template, so that each character of what is written says whose it is.
"""

from __future__ import annotations

import string

import hypothesis.strategies as st
import jinja2
from hypothesis import given, note, settings

from lazygguf.text.bounded_template import BoundedTemplate
from lazygguf.text.said_text import SaidText, said_spans

SAID, OWN = "abcd <", "wxyz\n>"
OF_SAID = set(SAID + SAID.upper())

_said = st.text(SAID, max_size=12)
_own = st.text(OWN, max_size=6)
_any = st.text(SAID + OWN, min_size=1, max_size=3)
_index = st.one_of(st.just(""), st.integers(-9, 9).map(str))


def _quoted(text: str) -> str:
    return "'" + text.replace("\n", "\\n") + "'"


_chars = _any.map(_quoted)
_between = _own.map(_quoted)
_OPERATIONS = st.one_of(
    st.sampled_from(
        [".strip()", ".lstrip()", ".rstrip()", " | trim", ".upper()", ".lower()", " | title", " | capitalize"]
    ),
    st.sampled_from([".swapcase()", " | reverse", " | string", " | safe", " * 2", " | list | join", "[::-1]"]),
    st.tuples(st.sampled_from(["strip", "lstrip", "rstrip", "removeprefix", "removesuffix"]), _chars).map(
        lambda made: f".{made[0]}({made[1]})"
    ),
    st.tuples(st.sampled_from(["split", "rsplit"]), _chars, st.integers(-1, 3), _between).map(
        lambda made: f".{made[0]}({made[1]}, {made[2]}) | join({made[3]})"
    ),
    st.tuples(st.sampled_from([".split()", ".rsplit()", ".splitlines()", ".splitlines(true)"]), _between).map(
        lambda made: f"{made[0]} | join({made[1]})"
    ),
    st.tuples(st.sampled_from(["partition", "rpartition"]), _chars, st.integers(0, 2)).map(
        lambda made: f".{made[0]}({made[1]})[{made[2]}]"
    ),
    st.tuples(_chars, _between, st.integers(-1, 3)).map(lambda made: f".replace({made[0]}, {made[1]}, {made[2]})"),
    st.tuples(_chars, _between).map(lambda made: f" | replace({made[0]}, {made[1]})"),
    st.tuples(_index, _index, st.sampled_from(["", "1", "2", "-1", "-3"])).map(
        lambda made: f"[{made[0]}:{made[1]}:{made[2]}]"
    ),
    st.tuples(_between, _between).map(lambda made: f" ~ {made[0]} + {made[1]}"),
)


@settings(max_examples=600, deadline=None, derandomize=True)
@given(
    parts=st.lists(st.one_of(_said.map(SaidText), _own), min_size=1, max_size=4),
    operations=st.lists(_OPERATIONS, max_size=4),
)
def test_each_character_says_whose_it_is(parts: list[str], operations: list[str]) -> None:
    expression = "parts | join"
    for operation in operations:
        expression = f"({expression}){operation}"
    note(expression)
    source = "{{ " + expression + " }}"
    text = BoundedTemplate(source).render({"parts": parts})
    assert text == jinja2.Environment().from_string(source).render({"parts": [str.__str__(part) for part in parts]})
    marks = [False] * len(text)
    for begin, end in said_spans(text):
        marks[begin:end] = [True] * (end - begin)
    assert marks == [char in OF_SAID for char in text]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(message=_said, own=_own, pattern=st.sampled_from(["%s{}%s", "{}%s{}", "%s", "{}{}"]))
def test_a_format_keeps_whose_each_character_is(message: str, own: str, pattern: str) -> None:
    literal = own.replace("\n", "\\n")
    for n, source in (
        (pattern.count("%s"), f"{{{{ '{literal}{pattern}' % values }}}}"),
        (pattern.count("{}"), f"{{{{ '{literal}{pattern}'.format(*values) }}}}"),
    ):
        values = tuple([SaidText(message), own, SaidText(message)][:n])
        text = BoundedTemplate(source).render({"values": values})
        spans = said_spans(text)
        said = "".join(text[begin:end] for begin, end in spans)
        assert said == "".join(value for value in values if isinstance(value, SaidText))


def test_the_letters_of_both_are_apart() -> None:
    assert not OF_SAID & set(OWN + OWN.upper()) and set(string.whitespace) & set(SAID) and "\n" in OWN
