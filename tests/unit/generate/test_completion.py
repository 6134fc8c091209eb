"""The generation loop and the OpenAI shapes, with a scripted engine."""

from __future__ import annotations

import contextlib
from typing import Any, Optional

import numpy as np
import pytest
from fakes import EOG, ByteTokenizer, ScriptedSession

from lazygguf.errors import Cancelled, ContextFullError
from lazygguf.generate.loop import Alternative, Piece, Request, TokenLogprob, generate, token_logprob
from lazygguf.generate.openai import (
    Envelope,
    chat_chunks,
    chat_result,
    text_chunks,
    text_logprobs,
    text_result,
)
from lazygguf.generate.options import CompletionOptions
from lazygguf.generate.sampling import SamplingParams
from lazygguf.read.context import TokenContext
from lazygguf.read.prompt import Prompt

GREEDY = SamplingParams(temperature=0)
PROMPT = [1, 2, 3]


def run(script: bytes, n_ctx: int = 64, **request: Any) -> tuple[list[Piece], TokenContext, ScriptedSession]:
    session = ScriptedSession(script, n_ctx)
    context = TokenContext(session)
    asked = Request(Prompt(PROMPT), sampling=GREEDY, **request)
    return list(generate(context, ByteTokenizer(), asked)), context, session  # type: ignore[arg-type]


def text_of(pieces: list[Piece]) -> tuple[str, Optional[str]]:
    return "".join(piece.text for piece in pieces), pieces[-1].finish_reason


def test_a_generation_ends_with_the_end_token() -> None:
    pieces, _, session = run(b"hello")
    assert text_of(pieces) == ("hello", "stop")
    assert [piece.counts for piece in pieces] == [True] * 5 + [False]
    assert session.ids == [*PROMPT, *b"hello"]  # the end token is not read


def test_a_generation_ends_at_max_tokens() -> None:
    pieces, _, session = run(b"hello", max_tokens=3)
    assert text_of(pieces) == ("hel", "length")
    assert session.ids == [*PROMPT, *b"he"]  # the last token is not read: nothing comes after it


def test_a_generation_ends_when_the_context_is_full() -> None:
    pieces, context, _ = run(b"x" * 100, n_ctx=10)
    assert text_of(pieces) == ("x" * 7, "length")
    assert context.n_tokens == 9


def test_a_generation_ends_before_a_stop_string() -> None:
    pieces, _, _ = run(b"one two three", stops=["two"])
    assert text_of(pieces) == ("one ", "stop")


def test_a_character_that_the_limit_cuts_becomes_a_replacement() -> None:
    assert text_of(run("a世".encode(), max_tokens=3)[0]) == ("a\ufffd", "length")


def test_a_stopping_criterion_sees_the_ids_and_ends_the_generation() -> None:
    seen: list[int] = []

    def criterion(ids: np.ndarray, logits: np.ndarray) -> bool:
        seen.append(len(ids))
        return len(ids) == 5

    assert text_of(run(b"hello", stopping_criteria=[criterion])[0]) == ("he", "stop")
    assert seen == [4, 5]


def test_a_logits_processor_changes_what_is_sampled() -> None:
    def only_z(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        scores[ord("z")] = 99
        return scores

    assert text_of(run(b"hello", max_tokens=2, logits_processors=[only_z])[0]) == ("zz", "length")


def test_hooks_get_all_ids_so_far_each_time_in_an_array_of_their_own() -> None:
    seen: list[list[int]] = []

    def note(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        seen.append(ids.tolist())
        ids[:] = 0
        return scores

    def criterion(ids: np.ndarray, logits: np.ndarray) -> bool:
        seen.append(ids.tolist())
        ids[:] = 0
        return False

    run(b"hello", max_tokens=3, logits_processors=[note], stopping_criteria=[criterion])
    text = [*PROMPT, *b"hel"]
    n = len(PROMPT)
    assert seen == [text[:n], text[: n + 1], text[: n + 1], text[: n + 2], text[: n + 2], text[: n + 3]]


def test_stats_tell_the_share_of_work_and_the_revived_tokens() -> None:
    _, context, _ = run(b"hello")
    stats = context.stats
    assert (stats.n_prompt, stats.n_reused, stats.n_decoded, stats.revived) == (3, 0, 6, 5)
    assert stats.kept == [3, 1]
    assert stats.token_share == pytest.approx((2 * 3 + 2 * 1) / (4 * 3))
    assert stats.kv_bytes == 800
    assert stats.ttft_s > 0 and stats.decode_tps > 0


def test_a_prompt_with_a_common_prefix_is_read_from_there() -> None:
    session = ScriptedSession(b"ab")
    context = TokenContext(session)
    context.read_prompt(Prompt([1, 2, 3, 4], (1, 3)))
    context.read_prompt(Prompt([1, 2, 9, 9], (1, 3)))
    assert session.evals == [([1, 2, 3, 4], (1, 3)), ([9, 9], (2, 3))]  # only new tokens can ask
    assert (context.stats.n_prompt, context.stats.n_reused) == (4, 2)


def test_the_same_prompt_again_is_not_read() -> None:
    session = ScriptedSession(b"ab")
    context = TokenContext(session)
    for _ in range(2):
        context.read_prompt(Prompt([1, 2, 3]))
    assert len(session.evals) == 1
    assert (context.stats.n_reused, context.stats.token_share) == (3, 0.0)


def test_the_same_prompt_after_an_answer_comes_back_without_being_read() -> None:
    _, context, session = run(b"hello")
    n_evals, ids = len(session.evals), session.ids[:3]
    context.read_prompt(Prompt(ids))
    assert len(session.evals) == n_evals and context.ids == ids
    assert (context.stats.n_reused, context.stats.token_share) == (3, 0.0)
    logits = context.logits()
    assert logits is not None and int(np.argmax(logits)) == ord("h")


def test_the_same_tokens_with_another_question_are_read_again() -> None:
    session = ScriptedSession(b"ab")
    context = TokenContext(session)
    context.read_prompt(Prompt([1, 2, 3, 4], (1, 3)))
    context.step(9, context.begin())
    context.read_prompt(Prompt([1, 2, 3, 4], (2, 4)))
    assert session.evals[-1] == ([4], (3, 4))


def test_a_prompt_that_the_context_goes_beyond_is_read_again_from_its_last_token() -> None:
    session = ScriptedSession(b"ab")
    context = TokenContext(session)
    context.read_prompt(Prompt([1, 2, 3, 4]))
    context.read_prompt(Prompt([1, 2]))
    assert session.evals[-1] == ([2], None) and session.ids == [1, 2]


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers_and_the_option() -> None:
    context = TokenContext(ScriptedSession(b"", n_ctx=8))
    for call in (context.read_prompt, context.append):
        with pytest.raises(ContextFullError, match=r"Requested tokens \(9\) exceed context window of 8.*--ctx-size"):
            call(Prompt(range(9)))
    assert context.n_tokens == 0


def test_a_failed_step_leaves_the_ids_at_the_last_whole_step() -> None:
    session = ScriptedSession(b"ab")
    context = TokenContext(session)
    context.append(Prompt([1, 2]))

    def fail() -> None:
        raise KeyboardInterrupt

    session.on_eval = fail
    with pytest.raises(KeyboardInterrupt):
        context.append(Prompt([3]))
    session.on_eval = lambda: None
    assert context.ids == [1, 2]
    context.read_prompt(Prompt([1, 2, 3]))
    assert session.ids == [1, 2, 3] and session.evals[-1][0] == [3]


def test_another_use_of_the_model_ends_a_generation_under_way() -> None:
    session = ScriptedSession(b"abcdef")
    context = TokenContext(session)
    old = generate(context, ByteTokenizer(), Request(Prompt(PROMPT), sampling=GREEDY))  # type: ignore[arg-type]
    assert next(old).text == "a"
    session.n_prompt = None
    new = generate(context, ByteTokenizer(), Request(Prompt([1, 2, 9]), sampling=GREEDY))  # type: ignore[arg-type]
    assert "".join(piece.text for piece in new) == "abcdef"
    with pytest.raises(RuntimeError, match="used for something else"):
        next(old)


def test_a_closed_generator_leaves_the_context_ready() -> None:
    session = ScriptedSession(b"abcdef")
    context = TokenContext(session)
    pieces = generate(context, ByteTokenizer(), Request(Prompt(PROMPT), sampling=GREEDY))  # type: ignore[arg-type]
    next(pieces)
    next(pieces)
    pieces.close()
    assert context.ids == [*PROMPT, ord("a")]
    context.append(Prompt([7]))
    assert session.ids == [*PROMPT, ord("a"), 7]


def test_cancel_ends_a_generation_between_two_tokens() -> None:
    context = TokenContext(ScriptedSession(b"abcdef"))
    pieces = generate(context, ByteTokenizer(), Request(Prompt(PROMPT), sampling=GREEDY))  # type: ignore[arg-type]
    next(pieces)
    context.cancel()
    with pytest.raises(Cancelled):
        next(pieces)
    context.begin()
    context.read_prompt(Prompt([1, 2, 3, 4]))  # the next generation is not cancelled


def test_using_the_context_from_its_own_callback_is_refused() -> None:
    context = TokenContext(ScriptedSession(b""))
    context.progress = lambda n_done, n_total: context.reset()
    with pytest.raises(RuntimeError, match="in use"):
        context.append(Prompt([1]))
    assert context.n_tokens == 0


def test_log_probabilities_are_those_of_the_softmax() -> None:
    logits = np.array([0.0, 1.0, 2.0, *[-50.0] * (EOG - 2)], np.float32)
    found = token_logprob(ByteTokenizer(), logits, 1, 2)  # type: ignore[arg-type]
    total = np.log(np.exp([0.0, 1.0, 2.0]).sum())
    assert found.chosen.logprob == pytest.approx(1 - total)
    assert [top.data for top in found.top] == [b"\x02", b"\x01"]
    assert [top.logprob for top in found.top] == pytest.approx([2 - total, 1 - total])


# ---- shapes


def envelope(**changes: Any) -> Envelope:
    return Envelope(model="m", n_prompt=3, **changes)


def pieces_of(script: bytes, **request: Any) -> Any:
    context = TokenContext(ScriptedSession(script))
    return generate(context, ByteTokenizer(), Request(Prompt(PROMPT), sampling=GREEDY, **request))  # type: ignore[arg-type]


def test_a_text_completion_has_the_shape_of_llama_cpps() -> None:
    result = text_result(envelope(), pieces_of(b"hi"))
    assert result["id"].startswith("cmpl-")
    assert result == {
        "id": result["id"],
        "object": "text_completion",
        "created": result["created"],
        "model": "m",
        "choices": [{"text": "hi", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def test_text_chunks_join_to_the_text_and_end_with_the_reason() -> None:
    chunks = list(text_chunks(envelope(prompt="P:"), pieces_of("h世!".encode())))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["text"] for choice in choices] == ["P:", "h", "世", "!", ""]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_chat_completion_has_the_shape_of_llama_cpps() -> None:
    result = chat_result(envelope(), pieces_of(b"hi", max_tokens=1))
    assert result["id"].startswith("chatcmpl-") and result["object"] == "chat.completion"
    assert result["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "h"},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert result["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def test_chat_chunks_are_the_role_the_text_and_an_empty_delta() -> None:
    chunks = list(chat_chunks(envelope(), pieces_of(b"hi")))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant"},
        {"content": "h"},
        {"content": "i"},
        {},
    ]
    assert choices[-1]["finish_reason"] == "stop"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_log_probabilities_come_in_both_shapes() -> None:
    text = text_result(envelope(offset=10), pieces_of(b"hi", n_logprobs=2))["choices"][0]["logprobs"]
    assert text is not None
    assert (text["tokens"], text["text_offset"]) == (["h", "i"], [10, 11])
    assert len(text["token_logprobs"]) == 2 and text["top_logprobs"][0]["h"] == text["token_logprobs"][0]
    chat = chat_result(envelope(), pieces_of(b"hi", n_logprobs=2))["choices"][0]["logprobs"]
    assert chat is not None
    assert [entry["token"] for entry in chat["content"]] == ["h", "i"]
    assert chat["content"][0]["bytes"] == [104] and len(chat["content"][0]["top_logprobs"]) == 2


def test_streamed_log_probabilities_are_the_unstreamed_ones() -> None:
    whole: Any = text_result(envelope(), pieces_of(b"hi", n_logprobs=1))["choices"][0]["logprobs"]
    chunks: list[Any] = [c["choices"][0]["logprobs"] for c in text_chunks(envelope(), pieces_of(b"hi", n_logprobs=1))]
    for key in whole:
        assert [value for chunk in chunks if chunk for value in chunk[key]] == whole[key]


@pytest.mark.parametrize("stop", [["STOP"], ["two"], ["zz"], []])
def test_offsets_of_log_probabilities_are_those_of_the_text_and_nothing_behind_a_stop_is_listed(
    stop: list[str],
) -> None:
    def pieces() -> Any:
        return pieces_of("ab STO \u4e16 two three".encode(), n_logprobs=1, stops=stop)

    choice = text_result(envelope(offset=10), pieces())["choices"][0]
    text, found = choice["text"], choice["logprobs"]
    assert found is not None
    assert len(found["tokens"]) == len(text.encode())  # a token is a byte: all of the text's, and no other
    for token, offset in zip(found["tokens"], found["text_offset"]):
        assert token.startswith("bytes:") or text[offset - 10] == token
    assert [o for t, o in zip(found["tokens"], found["text_offset"]) if t.startswith("bytes:")] == [17] * 3
    chunks: list[Any] = [chunk["choices"][0] for chunk in text_chunks(envelope(offset=10), pieces())]
    for key in found:
        assert [value for c in chunks if c["logprobs"] for value in c["logprobs"][key]] == found[key]  # type: ignore[literal-required]
    chat = chat_result(envelope(), pieces())["choices"][0]["logprobs"]
    assert chat is not None and bytes(byte for entry in chat["content"] for byte in entry["bytes"]) == text.encode()


def test_all_alternatives_are_given_and_parts_of_characters_have_different_names() -> None:
    pieces = pieces_of("\u4e16".encode(), n_logprobs=200)
    found = text_result(envelope(), pieces)["choices"][0]["logprobs"]
    assert found is not None
    assert [len(top) for top in found["top_logprobs"]] == [200] * 3
    assert found["tokens"] == ["bytes:\\xe4", "bytes:\\xb8", "bytes:\\x96"]
    assert all(top[token] == max(top.values()) for token, top in zip(found["tokens"], found["top_logprobs"]))


def test_tokens_of_one_text_have_different_names() -> None:
    alternatives = [Alternative(7, b"a", -0.5), Alternative(8, b"a", -1.0), Alternative(9, b"b", -2.0)]
    found = [TokenLogprob(alternatives[1], alternatives)]
    result = text_logprobs([Piece(8, "a", found, "stop")], 0)
    assert result is not None
    assert result["top_logprobs"] == [{"token_id:7": -0.5, "a": -1.0, "b": -2.0}]


def test_closing_a_stream_ends_its_generation() -> None:
    pieces = pieces_of(b"hello")
    with contextlib.closing(text_chunks(envelope(), pieces)) as chunks:
        next(chunks)
    assert next(pieces, None) is None


# ---- options


def test_defaults_are_those_of_llama_cpp() -> None:
    text, chat = CompletionOptions.of_text({}), CompletionOptions.of_chat({})
    assert (text.max_tokens, text.sampling.temperature, text.n_logprobs) == (16, 0.8, None)
    assert (chat.max_tokens, chat.sampling.temperature, chat.n_logprobs) == (None, 0.2, None)


def test_no_limit_can_be_said_in_three_ways() -> None:
    assert [CompletionOptions.of_text({"max_tokens": n}).max_tokens for n in (None, 0, -1)] == [None] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suffix": "x"}, "suffix is not supported: lazygguf does not fill in the middle"),
        ({"tools": [{}]}, "tools is not supported"),
        ({"functions": [{}]}, "functions is not supported"),
        ({"tfs_z": 0.5}, "tfs_z is 0.5, expected 1.0"),
        ({"temprature": 1}, "'temprature', did you mean 'temperature'"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5"),
        ({"max_tokens": True}, "max_tokens is True"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"logprobs": 1, "echo": True}, "a lazy read computes no logits of prompt tokens"),
        ({"stop": "x" * 5000}, "stop string has 5000 characters"),
        ({"grammar": 'root ::= "a"', "response_format": {"type": "json_object"}}, "both given"),
        ({"top_p": 2}, "top_p is 2"),
    ],
)
def test_a_wrong_text_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        CompletionOptions.of_text(options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"echo": True}, "unknown completion option 'echo'"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs=True"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs is -1"),
        ({"tool_choice": "required"}, "tool_choice is not supported"),
    ],
)
def test_a_wrong_chat_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        CompletionOptions.of_chat(options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": 5}, "stop is 5, expected text or a list of texts"),
        ({"stopping_criteria": 5}, "stopping_criteria is 5, expected a function of ids and logits"),
        ({"logits_processor": [5]}, "logits_processor holds 5, expected functions"),
        ({"logit_bias": [1]}, "logit_bias is [1], expected a dictionary of token ids and numbers"),
        ({"parse_special": 1}, "parse_special is 1, expected True or False"),
    ],
)
def test_an_option_of_a_wrong_type_is_refused_by_name_and_value(options: dict[str, Any], message: str) -> None:
    for make in (CompletionOptions.of_text, CompletionOptions.of_chat):
        with pytest.raises(TypeError) as caught:
            make(options)
        assert message in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"max_tokens": np.int64(5), "logprobs": np.int32(2), "top_k": np.uint8(3), "temperature": np.float32(0.5)}
    options = CompletionOptions.of_text({**given, "seed": np.uint32(7)})
    found = (options.max_tokens, options.n_logprobs, options.sampling.top_k, options.sampling.temperature)
    assert (*found, options.sampling.seed) == (5, 2, 3, 0.5, 7)
    assert {type(value) for value in (*found, options.sampling.seed)} == {int, float}
    for wrong in (np.bool_(True), np.float64(2), "2"):
        with pytest.raises(ValueError, match="max_tokens is"):
            CompletionOptions.of_text({"max_tokens": wrong})


def test_options_that_say_nothing_are_accepted() -> None:
    CompletionOptions.of_chat({"tools": [], "tool_choice": "none", "functions": [], "stop": [""]})
    CompletionOptions.of_chat({"tools": None, "functions": None, "stop": None, "seed": None, "logit_bias": None})
    CompletionOptions.of_text({"suffix": None, "tfs_z": 1.0, "grammar": None, "logits_processor": None})
