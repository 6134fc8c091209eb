"""Chat templates, and where in the prompt the question stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import CHATML, TinyConfig

from lazygguf.text.templates import ChatTemplate, last_question, question_span, template_positions
from lazygguf.text.tokenizer import Tokenizer

KEY = "tokenizer.chat_template"
TinyModel = Callable[[TinyConfig], tuple[Path, Any]]


@pytest.fixture(scope="module", params=["spm", "bpe"])
def tokenizer(request: pytest.FixtureRequest, tiny_model: TinyModel) -> Tokenizer:
    return Tokenizer(str(tiny_model(TinyConfig(tokenizer=request.param))[0]))


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def asked_text(tokenizer: Tokenizer, content: str, source: str = CHATML) -> str:
    prompt = ChatTemplate(tokenizer, {KEY: source}).render(user(content)).prompt
    assert prompt.query_span is not None
    pieces = [tokenizer.piece(token, special=True) for token in prompt.ids[slice(*prompt.query_span)]]
    return b"".join(pieces).decode("utf-8", "replace")


def test_the_question_of_a_short_turn_is_the_whole_turn(tokenizer: Tokenizer) -> None:
    assert asked_text(tokenizer, "Who?\n\nWhen?").strip() == "Who?\n\nWhen?"


def test_the_question_of_a_long_turn_is_its_last_paragraph(tokenizer: Tokenizer) -> None:
    document = "The sky. Überall 世界 😀. " * 40
    assert asked_text(tokenizer, f"{document}\n\nWas heißt 世界 😀?").strip() == "Was heißt 世界 😀?"


def test_a_question_that_stands_in_the_document_too_is_found_at_the_end(tokenizer: Tokenizer) -> None:
    content = "who? " * 200 + "\n\nwho?"
    prompt = ChatTemplate(tokenizer, {KEY: CHATML}).render(user(content)).prompt
    assert prompt.query_span is not None
    tail = b"".join(tokenizer.piece(token, special=True) for token in prompt.ids[prompt.query_span[1] :])
    assert tail == b"<|im_end|>\n<|im_start|>assistant\n"


def test_a_question_that_stands_in_the_templates_tail_is_not_looked_for_there(tokenizer: Tokenizer) -> None:
    prompt = ChatTemplate(tokenizer, {KEY: CHATML}).render(user("assistant")).prompt
    assert prompt.query_span is not None
    tail = b"".join(tokenizer.piece(token, special=True) for token in prompt.ids[prompt.query_span[1] :])
    assert tail.count(b"assistant") == 1


def test_a_template_that_trims_the_content_keeps_the_question(tokenizer: Tokenizer) -> None:
    source = CHATML.replace("message['content']", "message['content'] | trim")
    assert asked_text(tokenizer, "  Who?  \n", source).strip() == "Who?"


def test_a_very_long_question_asks_with_its_last_tokens() -> None:
    pieces = [b"x"] * 300 + [b"<end>"]
    assert question_span(pieces, "x" * 300, n_tail=5) == (172, 300)


def test_a_question_in_the_middle_of_tokens_takes_them_whole() -> None:
    assert question_span([b"ab", b"cd", b"ef", b"gh"], "de") == (1, 3)
    assert question_span([b"ab", b"cd"], "cd") == (1, 2)


def test_what_is_not_there_has_no_span() -> None:
    assert question_span([b"ab"], "x") is None
    assert question_span([b"ab"], "") is None
    assert question_span([], "x") is None


def test_the_last_paragraph_ignores_blank_ends() -> None:
    document = "word " * 200
    assert last_question(f"{document}\n\n a\nb \n \n\n") == "a\nb"


def test_a_long_text_that_no_question_follows_asks_nothing() -> None:
    document = "word " * 200
    assert last_question(document) == ""
    assert last_question(f"first\n\n{document}") == ""
    assert last_question("short text") == "short text"


def test_a_question_before_the_text_is_not_taken_for_the_texts_last_paragraph() -> None:
    document = "word " * 200
    assert last_question(f"Who came?\n\n{document}\n\nThe end.") == ""
    assert last_question(f"Who came?\n\n{document}\n\nAnd who left?") == "And who left?"
    assert last_question(f"{document}\n\nThe end.") == "The end."


def test_a_templates_own_tokens_are_what_nobody_said() -> None:
    pieces = [b"<s>", b"user", b"\n", b"Hello", b" you", b"</s>", b"as", b"sistant", b"\n"]
    assert template_positions(pieces, ["Hello you"]) == (0, 1, 2, 5, 6, 7, 8)
    assert template_positions(pieces, ["  Hello you\n"]) == (0, 1, 2, 5, 6, 7, 8)
    assert template_positions(pieces, ["Hello y"]) == (0, 1, 2, 5, 6, 7, 8)  # a token that holds both was said
    assert template_positions(pieces, ["Good bye"]) == ()


def test_a_text_that_a_template_brings_along_is_not_protected() -> None:
    pieces = [b"<s>", *[b"You are a model. "] * 20, b"Hello", b"</s>"]
    assert template_positions(pieces, ["Hello"]) == (22,)


def test_a_chat_without_a_user_turn_has_no_question(tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": "Be kind."}]
    assert ChatTemplate(tokenizer, {KEY: CHATML}).render(messages).prompt.query_span is None


def test_text_parts_are_joined_and_others_refused(tokenizer: Tokenizer) -> None:
    template = ChatTemplate(tokenizer, {KEY: CHATML})
    assert "onetwo" in template.render(user([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])).text
    with pytest.raises(ValueError, match="'image_url', expected only text"):
        template.render(user([{"type": "image_url", "image_url": {"url": "x"}}]))


def test_the_prompt_begins_with_bos_where_the_model_wants_it(tiny_model: TinyModel) -> None:
    for add_bos in (True, False):
        tokenizer = Tokenizer(str(tiny_model(TinyConfig(add_bos_token=add_bos))[0]))
        for source in (CHATML, "{{ bos_token }}" + CHATML):
            ids = ChatTemplate(tokenizer, {KEY: source}).render(user("hi")).prompt.ids
            expected = 1 if add_bos or source.startswith("{{ bos") else 0
            assert ids[:2].count(tokenizer.token_bos()) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for", "line 1"),
        ("{{ raise_exception('system role not supported') }}", "system role not supported"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{{ messages | nothing }}", "nothing"),
        ("{{ " + "(" * 5000, "nests too deep"),
        ("x" * ((1 << 17) + 1), "131073 characters"),
        ("{{ a }}" * 12000, "12002 parts"),
        ("{% if messages %}" * 110 + "{% endif %}" * 110, "cannot be read"),  # deeper than Python's own limit
        ("{{ 'the ' * 1500000 }}", "value of more than"),
        ("{{ ''.encode() }}", "str.encode"),
        (" ", "empty"),
        (None, "has no chat template"),
    ],
)
def test_a_bad_template_in_the_file_is_a_sentence_when_it_is_used(
    tokenizer: Tokenizer, source: Any, message: str
) -> None:
    template = ChatTemplate(tokenizer, {KEY: source})  # the model still loads
    with pytest.raises(ValueError) as caught:
        template.render(user("hi"))
    assert message in str(caught.value)
    assert "--chat-template" in str(caught.value)


def test_a_bad_template_given_by_the_caller_is_refused_at_once(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="line 1"):
        ChatTemplate(tokenizer, {KEY: CHATML}, override="{% for")


@pytest.mark.parametrize("messages", [[], ["hi"], [{"content": "hi"}], [{"role": "user"}], [{"role": 3}]])
def test_malformed_messages_are_refused(tokenizer: Tokenizer, messages: Any) -> None:
    with pytest.raises(ValueError, match="message"):
        ChatTemplate(tokenizer, {KEY: CHATML}).render(messages)
