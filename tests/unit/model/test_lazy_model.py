"""LazyModel on a tiny model: the calls of llama_cpp.Llama and what they give."""

from __future__ import annotations

from typing import Any, Callable

import llama_cpp
import numpy as np
from answers import TEXT, greedy, streamed

from lazygguf import LazyModel, Stats

Llama: Any = vars(llama_cpp)["Llama"]  # its own annotations are partial


def test_tokens_are_llama_cpps(model: LazyModel, path: str) -> None:
    theirs = Llama(path, vocab_only=True, verbose=False)
    for text in ("hello world", "héllo 世界 😀\n\n  x", "<|im_start|>user", "a\0b", ""):
        for special in (False, True):
            ids = model.tokenize(text.encode(), special=special)
            assert ids == theirs.tokenize(text.encode(), special=special)
            assert model.detokenize(ids) == theirs.detokenize(ids)
            assert model.detokenize(ids, special=True) == theirs.detokenize(ids, special=True)
    assert (model.token_bos(), model.token_eos(), model.token_nl()) == (
        theirs.token_bos(),
        theirs.token_eos(),
        theirs.token_nl(),
    )
    assert model.n_vocab() == theirs.n_vocab()


def test_a_program_written_for_llama_cpp_gets_the_same_keys(path: str) -> None:
    with LazyModel(path, n_threads=1, keep="off") as ours:
        theirs = Llama(path, n_ctx=512, verbose=False, n_threads=1)
        messages = [{"role": "user", "content": "the cat"}]
        calls: list[Callable[[Any], Any]] = [
            lambda m: m.create_completion("the cat", max_tokens=3, temperature=0),
            lambda m: m("the cat", max_tokens=3, temperature=0),
            lambda m: m.create_chat_completion(messages, max_tokens=3, temperature=0),
            lambda m: list(m.create_completion("the cat", max_tokens=3, temperature=0, stream=True))[-1],
            lambda m: next(iter(m.create_chat_completion(messages, max_tokens=3, temperature=0, stream=True))),
            lambda m: list(m.create_chat_completion(messages, max_tokens=3, temperature=0, stream=True))[-1],
        ]
        for ask in calls:
            mine, expected = ask(ours), ask(theirs)
            assert mine.keys() == expected.keys()
            assert mine["choices"][0].keys() == expected["choices"][0].keys()
            for key in ("object", "model", "usage"):
                assert mine.get(key) == expected.get(key)
            assert mine["choices"][0]["finish_reason"] == expected["choices"][0]["finish_reason"]


def test_dense_greedy_text_is_llama_cpps(path: str) -> None:
    theirs = Llama(path, n_ctx=512, verbose=False, n_threads=1)
    with LazyModel(path, n_threads=1, keep="off", type_k="f32", type_v="f32") as ours:
        ids = ours.tokenize(TEXT.encode())
        assert [t for t, _ in zip(ours.generate(ids, temp=0), range(12))] == [
            t for t, _ in zip(theirs.generate(ids, temp=0), range(12))
        ]


def test_eval_reads_on_and_logits_are_the_last_tokens(model: LazyModel) -> None:
    assert model.logits is None and model.n_tokens == 0
    model.eval(model.tokenize(TEXT.encode()))
    first = model.logits
    assert first is not None and first.shape == (model.n_vocab(),) and first.dtype == np.float32
    model.eval([5])
    assert not np.array_equal(first, model.logits)
    assert model.stats.n_reused == model.n_tokens - 1
    model.reset()
    assert model.logits is None and model.n_tokens == 0


def test_the_same_text_again_gives_the_same_logits(model: LazyModel) -> None:
    ids = model.tokenize(TEXT.encode())
    found = []
    for _ in range(2):
        model.reset()
        model.eval(ids)
        found.append(model.logits)
    np.testing.assert_array_equal(found[0], found[1])


def test_the_stream_joins_to_the_unstreamed_text(model: LazyModel) -> None:
    for seed in range(3):
        options = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": seed, "max_tokens": 60}
        model.reset()
        whole = greedy(model, **options)
        model.reset()
        assert streamed(model, **options) == whole


def test_a_stop_string_ends_the_text(model: LazyModel) -> None:
    options = {"temperature": 1.5, "seed": 1, "max_tokens": 60}
    whole = greedy(model, **options)
    stop = whole[3:5]
    model.reset()
    assert greedy(model, stop=[stop], **options) == whole[: whole.index(stop)]


def test_a_models_seed_makes_its_answers_repeatable(path: str) -> None:
    said = []
    for seed in (3, 3, 4):
        with LazyModel(path, n_threads=1, seed=seed) as model:
            said.append([greedy(model, temperature=1.5) for _ in range(2)])
    assert said[0] == said[1] != said[2]


def test_stats_tell_what_was_read(model: LazyModel) -> None:
    greedy(model)
    stats = model.stats
    n = len(model.tokenize(TEXT.encode()))
    assert (stats.n_prompt, stats.n_reused, stats.n_decoded) == (n, 0, 12)
    assert stats.kept == [n, int(0.5 * n), int(0.25 * n)]
    assert 0 < stats.token_share < 1
    assert stats.kv_bytes > 0 and stats.aux_bytes > 0 and stats.ttft_s >= stats.prefill_s > 0
    assert Stats.from_dict(stats.to_dict()) == stats


def test_a_longer_prompt_is_read_from_the_common_prefix(model: LazyModel) -> None:
    greedy(model)
    n = len(model.tokenize(TEXT.encode()))
    greedy(model, TEXT + "where is the cat?")
    assert model.stats.n_reused >= n - 1


def test_a_chat_asks_with_its_question(model: LazyModel) -> None:
    result = model.create_chat_completion(
        [{"role": "user", "content": TEXT * 3 + "\n\nwhere is the cat?"}],
        max_tokens=4,
        logprobs=True,
        top_logprobs=2,
    )
    logprobs = result["choices"][0]["logprobs"]
    assert logprobs is not None
    content = logprobs["content"]
    assert len(content) == 4 and all(len(entry["top_logprobs"]) == 2 for entry in content)


def test_json_comes_out_of_response_format(model: LazyModel) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    result = model.create_chat_completion(
        [{"role": "user", "content": "hi"}],
        temperature=0,
        max_tokens=200,
        response_format={"type": "json_object", "schema": schema},
        logit_bias={token: -5.0 for token in model.tokenize(b" \n\t", add_bos=False)},
    )
    assert result["choices"][0]["message"]["content"].replace(" ", "").startswith('{"a":')


def test_generate_yields_token_ids_until_the_caller_stops(model: LazyModel) -> None:
    ids = model.tokenize(TEXT.encode())
    tokens = [token for token, _ in zip(model.generate(ids, temp=0), range(12))]
    model.reset()
    assert model.detokenize(tokens).decode("utf-8", "replace").startswith(greedy(model)[:5])


def test_the_progress_callback_sees_the_whole_prompt(path: str) -> None:
    seen: list[tuple[int, int]] = []
    with LazyModel(path, n_threads=1, n_ubatch=32, progress_callback=lambda *n: seen.append(n)) as model:
        greedy(model)
        assert seen[-1] == (model.stats.n_prompt, model.stats.n_prompt)
    assert seen == sorted(seen) and len(seen) > 1
