"""The loop that chooses tokens and reads them: greedy, by teacher forcing, and where it ends."""

from __future__ import annotations

import pytest
from fakes import EOG, ScriptedSession

from lazygguf.generate.loop import decode, greedy
from lazygguf.read.context import TokenContext
from lazygguf.read.prompt import Prompt


def asked(script: bytes, n_ctx: int = 64) -> tuple[TokenContext, ScriptedSession]:
    session = ScriptedSession(script, n_ctx)
    context = TokenContext(session)
    context.append(Prompt([1, 2, 3]))
    return context, session


def is_end(token: int) -> bool:
    return token == EOG


def test_a_greedy_answer_ends_before_the_end_token() -> None:
    context, session = asked(b"hello")
    assert bytes(greedy(context, 99, is_end)) == b"hello"
    assert session.ids == [1, 2, 3, *b"hello"]


def test_a_greedy_answer_has_so_many_tokens_at_most_and_the_last_one_is_not_read() -> None:
    context, session = asked(b"hello")
    assert bytes(greedy(context, 3, is_end)) == b"hel"
    assert session.ids == [1, 2, 3, *b"he"]
    assert list(greedy(context, 0, is_end)) == []


def test_the_first_tokens_of_a_greedy_answer_may_be_forbidden_to_end_it() -> None:
    context, _ = asked(b"hi")
    said = list(greedy(context, 99, is_end, n_least=4))
    assert bytes(said[:2]) == b"hi" and len(said) == 4 and EOG not in said


def test_teacher_forcing_gives_the_logits_before_each_token() -> None:
    context, session = asked(b"ab")
    forced = iter([7, 8])
    seen = []
    for token, logits in decode(context, lambda logits: next(forced)):
        seen.append((token, int(logits.argmax())))
        if token == 8:
            break
    assert seen == [(7, ord("a")), (8, ord("b"))]
    assert session.ids == [1, 2, 3, 7]


def test_decoding_ends_where_the_context_was_used_for_something_else() -> None:
    context, _ = asked(b"hello")
    tokens = greedy(context, 99, is_end)
    next(tokens)
    context.append(Prompt([4]))
    with pytest.raises(RuntimeError, match="used for something else"):
        next(tokens)
