"""The reference is held to llama-cpp-python where it is dense, and to its own rule where it prunes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import reference
import tiny_gguf
from gguf import GGMLQuantizationType
from parity.compare import llama_logits
from reference import Point, Reference, Schedule
from tiny_gguf import ARCHS, TinyConfig

# NMSE of the last token's logits with an f16 KV cache. Beside each: the worst of eight seeds with flash
# attention on and off, measured for llama / qwen2. Below F32 ggml also rounds the activations, which the
# reference does not.
TOLERANCE = {
    "F32": 1e-5,  # 1.4e-6 / 1.3e-7
    "F16": 2e-5,  # 8.5e-6 / 7.9e-7
    "BF16": 5e-4,  # 2.4e-4 / 3.0e-5
    "Q8_0": 5e-3,  # 2.7e-3 / 4.8e-4
    "Q4_0": 5e-3,  # 2.2e-3 / 3.4e-4
    "Q4_1": 5e-3,  # 1.8e-3 / 5.2e-4
    "Q5_0": 5e-3,  # 1.8e-3 / 3.5e-4
    "Q4_K": 5e-3,  # 3.0e-3 / 6.0e-4
}
GGML_F32, GGML_F16 = int(GGMLQuantizationType.F32), int(GGMLQuantizationType.F16)
PRUNING = Schedule(points=(Point(1, 0.5), Point(3, 0.25)))

Tiny = tuple[dict[str, np.ndarray], TinyConfig]


def prompt(n: int, seed: int = 0, n_vocab: int = 320) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, n_vocab, n)]


def llama_of_file(path: Path, ids: list[int], *, type_kv: int = GGML_F16, flash_attn: bool = False) -> np.ndarray:
    model = llama_cpp.Llama(
        str(path),
        n_ctx=256,
        n_threads=2,
        n_threads_batch=2,
        type_k=type_kv,
        type_v=type_kv,
        flash_attn=flash_attn,
        verbose=False,
    )
    try:
        return llama_logits(model, ids)
    finally:
        model.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    config = TinyConfig()
    return tiny_gguf.write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", config), config


# ---- dense, against llama.cpp ----


@pytest.mark.parametrize("flash_attn", [False, True])
@pytest.mark.parametrize("weight_type", list(TOLERANCE))
@pytest.mark.parametrize("arch", ARCHS)
def test_the_references_dense_logits_are_llama_cpps(
    tmp_path: Path, arch: str, weight_type: str, flash_attn: bool
) -> None:
    config = TinyConfig.for_type(weight_type, arch=arch)
    weights = tiny_gguf.write_tiny_gguf(tmp_path / "tiny.gguf", config)
    ids = prompt(96)
    expected = llama_of_file(tmp_path / "tiny.gguf", ids, flash_attn=flash_attn)
    error = reference.nmse(Reference(weights, config, kv_f16=True).eval(ids), expected)
    print(f"{arch} {weight_type} flash_attn={flash_attn}: {error:.1e}")
    assert error <= TOLERANCE[weight_type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"arch": "qwen2", "tokenizer": "bpe"},
        {"arch": "qwen3", "head_dim": 24},
        {"arch": "qwen3", "head_dim": 32, "qkv_bias": True},
        {"arch": "qwen3", "head_dim": 32, "rope_scaling": "yarn", "tied": True, "rope_freq_base": 1e6},
        {"tied": True},
        {"n_head_kv": 4},
        {"n_head_kv": 1},
        {"rope_freqs": True, "rope_freq_base": 500000.0},
        {"rope_scaling": "linear"},
        {"rope_scaling": "yarn"},
        {"rope_scaling": "yarn", "n_embd": 256, "n_ctx_orig": 4096},
        {"arch": "qwen2", "rope_scaling": "yarn", "tied": True, "rope_freq_base": 1e6},
        {"rope_freqs": True, "rope_scaling": "yarn"},
        {"rms_eps": 1e-2},
    ],
    ids=str,
)
def test_with_float32_everywhere_only_rounding_is_left(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = TinyConfig(**changes)
    weights = tiny_gguf.write_tiny_gguf(tmp_path / "tiny.gguf", config)
    ids = prompt(96)
    expected = llama_of_file(tmp_path / "tiny.gguf", ids, type_kv=GGML_F32)
    error = reference.nmse(Reference(weights, config).eval(ids), expected)
    print(f"{changes}: {error:.1e}")
    assert error <= 1e-10  # 4e-13 to 6e-12 measured


@pytest.mark.parametrize(
    "changes", [{"rope_scaling": "linear"}, {"rope_scaling": "yarn"}, {"rope_freqs": True}], ids=str
)
def test_rope_variants_are_not_the_same_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    plain, changed = TinyConfig(), TinyConfig(**changes)
    ids = prompt(96)
    logits = [
        Reference(tiny_gguf.write_tiny_gguf(tmp_path / "tiny.gguf", config), config).eval(ids)
        for config in (plain, changed)
    ]
    assert reference.nmse(logits[1], logits[0]) > 1e-2


# ---- the rule ----


def test_points_that_keep_all_change_nothing(tiny: Tiny) -> None:
    dense, lazy = Reference(*tiny), Reference(*tiny, Schedule((Point(1, 1.0), Point(3, 1.0))))
    for ids in (prompt(40), [7], [8]):
        np.testing.assert_array_equal(lazy.eval(ids), dense.eval(ids))
    assert [len(rows) for rows in lazy.cached] == [42] * 3


def test_a_prompt_below_min_prompt_runs_dense(tiny: Tiny) -> None:
    dense, lazy = Reference(*tiny), Reference(*tiny, Schedule(PRUNING.points, min_prompt=41))
    np.testing.assert_array_equal(lazy.eval(prompt(40)), dense.eval(prompt(40)))
    assert [scores.size for scores in lazy.scores] == [0, 0]
    lazy.eval([7])  # goes by what the dense prompt chose
    assert [len(live) for live in lazy.live] == [41, 41, 41]
    lazy.eval([7])
    assert [len(live) for live in lazy.live] == [42, 20 + 1, 10 + 1]


def test_dense_in_one_piece_is_dense_token_by_token(tiny: Tiny) -> None:
    ids = prompt(40)
    whole, pieces = Reference(*tiny), Reference(*tiny)
    expected = whole.eval(ids)
    for token in ids:
        logits = pieces.eval([token])
    assert reference.nmse(logits, expected) < 1e-11


def test_trim_then_eval_is_as_if_the_rest_had_never_been_read(tiny: Tiny) -> None:
    once, twice = Reference(*tiny), Reference(*tiny)
    once.eval(prompt(40))
    twice.eval(prompt(40))
    twice.eval(prompt(9, seed=1))
    twice.trim(40)
    np.testing.assert_array_equal(twice.eval([5]), once.eval([5]))


def test_trim_forgets_in_every_segment(tiny: Tiny) -> None:
    lazy = Reference(*tiny, PRUNING)
    lazy.eval(prompt(48))
    lazy.trim(30)
    assert lazy.n_tokens == 30
    assert lazy.cached[0] == list(range(30))
    assert all(pos < 30 for rows in (*lazy.k, *lazy.v, *lazy.aux) for pos in rows)
    lazy.eval([5])
    assert [len(live) for live in lazy.live] == [31, 15, 7]


def test_pruning_changes_the_logits_and_one_wrong_position_would_show(
    tiny: Tiny,
) -> None:
    ids = prompt(96)
    lazy = Reference(*tiny, PRUNING)
    logits = lazy.eval(ids)
    assert reference.nmse(logits, Reference(*tiny).eval(ids)) > 1e-2
    other = Reference(*tiny, Schedule((Point(1, 0.5), Point(3, 0.2))))
    assert reference.nmse(logits, other.eval(ids)) > 1e-4


@pytest.mark.parametrize("max_revive", [-1, 0, 2])
def test_a_position_is_computed_at_most_once_per_segment(tiny: Tiny, max_revive: int) -> None:
    lazy = Reference(*tiny, Schedule(PRUNING.points, max_revive=max_revive))
    seen: list[set[int]] = [set() for _ in lazy.segments]
    n_revived = 0
    for ids in (prompt(48), [5], [6], prompt(7, seed=2), [7], [8], [9]):
        lazy.eval(ids)
        for s, computed in enumerate(lazy.computed):
            assert seen[s].isdisjoint(computed)
            seen[s].update(computed)
            assert lazy.cached[s] == sorted(seen[s])
        n_revived += lazy.n_revived
    assert n_revived > 0  # a later turn revives whatever the budget


@pytest.mark.parametrize("max_revive", [-1, 0, 2])
def test_live_sets_hold_what_was_computed_and_are_nested_unless_they_were_chosen_before(
    tiny: Tiny, max_revive: int
) -> None:
    lazy = Reference(*tiny, Schedule(PRUNING.points, n_sink=3, max_revive=max_revive))
    for ids in (prompt(48), [5], [6], prompt(7, seed=2), [7]):
        lazy.eval(ids)
        assert lazy.late == (len(ids) == 1)
        for s, live in enumerate(lazy.live):
            assert live == sorted(set(live))
            assert {0, 1, 2, lazy.n_tokens - 1} <= set(live) <= set(lazy.cached[s])
            assert set(lazy.computed[s]) <= set(live)
            assert lazy.late or s == 0 or set(live) <= set(lazy.live[s - 1])


@pytest.mark.parametrize(("max_revive", "at_first"), [(1, 0), (2, 1), (3, 1)])
def test_the_revive_budget_counts_per_decode_step(tiny: Tiny, max_revive: int, at_first: int) -> None:
    free, tight = Reference(*tiny, PRUNING), Reference(*tiny, Schedule(PRUNING.points, max_revive=max_revive))
    for lazy in (free, tight):
        lazy.eval(prompt(96))
        lazy.eval([5])
        assert lazy.n_revived == 0  # the prompt computed all that it chose
    scores = tight.scores[0]
    for lazy in (free, tight):
        lazy.eval([6])
    assert free.n_revived > 3
    assert tight.n_revived == max_revive
    wanted = sorted(set(free.computed[1]) - {97}, key=lambda pos: (-scores[pos], pos))
    assert set(tight.computed[1]) - {97} == set(wanted[:at_first])  # the rest is the second point's


def test_a_plain_decode_step_lives_on_what_the_step_before_chose(tiny: Tiny) -> None:
    lazy = Reference(*tiny, PRUNING)
    lazy.eval(prompt(96))
    chosen = lazy.live
    lazy.eval([5])
    assert lazy.live == [[*positions, 96] for positions in chosen]
    assert lazy.computed == [[96]] * 3
    scores, live, cached = lazy.scores, lazy.live, lazy.cached
    lazy.eval([6])
    back: set[int] = set()
    for s, point in enumerate(PRUNING.points):
        by_pos = {pos: float(scores[s][pos]) for pos in live[s]}
        selected = reference.select(by_pos, {96}, point.keep, 97)
        back |= set(selected) - set(cached[s + 1])
        assert lazy.live[s + 1] == sorted({*selected, *back, 97})
        assert lazy.computed[s + 1] == sorted({*back, 97})


def test_what_comes_back_goes_on_through_all_later_segments(tiny: Tiny) -> None:
    points = tuple(Point(il, 0.5) for il in (0, 1, 2))
    lazy = Reference(*tiny, Schedule(points, max_revive=3))
    lazy.eval(prompt(96))
    n_back = 0
    for token in prompt(12, seed=1):
        lazy.eval([token])
        back = [set(rows) - {lazy.n_tokens - 1} for rows in lazy.computed]
        assert all(earlier <= later for earlier, later in zip(back, back[1:]))
        assert all(rows <= set(live) for rows, live in zip(back[1:], lazy.live[1:]))
        assert lazy.n_revived == len(back[-1]) <= 3
        n_back += len(back[1])
    assert n_back > 0


@pytest.mark.parametrize(
    "said",
    [{"query_span": (96, 97)}, {"query_span": (3, 9)}, {"protect": [5]}, {"scores": np.ones(97, np.float32)}],
    ids=str,
)
def test_a_step_of_which_more_is_said_chooses_as_it_goes(tiny: Tiny, said: dict[str, Any]) -> None:
    lazy = Reference(*tiny, Schedule((Point(-1, 1.0), *PRUNING.points)))
    lazy.eval(prompt(96))
    lazy.eval([5], **said)
    assert not lazy.late
    lazy.eval([6])
    assert lazy.late


def test_a_trimmed_context_chooses_as_it_goes_once(tiny: Tiny) -> None:
    lazy = Reference(*tiny, PRUNING)
    lazy.eval(prompt(96))
    lazy.trim(95)
    for late in (False, True):
        lazy.eval([5])
        assert lazy.late == late


def test_scores_are_shares_of_attention(tiny: Tiny) -> None:
    lazy = Reference(*tiny, PRUNING)
    lazy.eval(prompt(48))
    for s, scores in enumerate(lazy.scores):
        assert np.nansum(scores) == pytest.approx(1.0, abs=1e-5)
        assert np.flatnonzero(~np.isnan(scores)).tolist() == lazy.live[s]


def test_listed_heads_are_combined_by_maximum_and_neighbours_by_mean() -> None:
    look = np.zeros((3, 6), np.float32)
    look[:, [0, 1, 5]] = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0]]
    for point, expected in ((Point(0, 0.5), [0.5, 0.2, 0.3]), (Point(0, 0.5, heads=(0, 1)), [0.5, 0.3, 0.7])):
        asking = reference.scored_rows(point, [look[:, None]])[:, 0]
        np.testing.assert_allclose(reference.score(point, [0, 1, 5], [asking]), expected, rtol=1e-6)
    pooled = reference.score(Point(0, 0.5, heads=(0, 1), pool=3), [0, 1, 5], [look[:2]])
    np.testing.assert_allclose(pooled, [0.4, 0.4, 0.7], rtol=1e-6)  # 5 has no neighbour within 1
    earlier = reference.score(Point(0, 0.5, heads=(0,)), [0, 1, 5], [look[:1], np.ones((1, 1), np.float32)])
    np.testing.assert_allclose(earlier, [0.55, 0.1, 0.35], rtol=1e-6)  # a mean over all who ask


def test_ties_go_to_the_earlier_position_and_protected_ones_come_first() -> None:
    scores = {0: 0.1, 2: 0.1, 3: 0.4, 7: 0.1, 9: 0.0}
    assert reference.select(scores, {9}, 0.3, 10) == [0, 3, 9]
    assert reference.select(scores, {7, 9}, 0.1, 10) == [7, 9]
    assert reference.select(scores, {9}, 1.0, 10) == [0, 2, 3, 7, 9]


@pytest.mark.parametrize(
    ("n_query", "span", "asking"),
    [
        (1, None, range(47, 48)),
        (8, None, range(40, 48)),
        ("question", None, range(24, 48)),
        ("question", (30, 36), range(30, 36)),
        ("question", (40, 99), range(40, 48)),
    ],
)
def test_rows_that_ask_are_never_pruned(tiny: Tiny, n_query: Any, span: Any, asking: range) -> None:
    lazy = Reference(*tiny, Schedule((Point(1, 0.5), Point(3, 0.02, n_query=n_query))))
    lazy.eval(prompt(48), span)
    assert lazy.live[2] == sorted({*asking, 47})


def test_at_most_the_last_128_of_a_span_ask(tiny: Tiny) -> None:
    lazy = Reference(*tiny, Schedule((Point(1, 0.1, n_query="question"),)))
    lazy.eval(prompt(150), (2, 148))
    assert lazy.live[1] == [*range(20, 148), 149]


def test_a_span_of_old_tokens_leaves_the_question_to_the_newest(tiny: Tiny) -> None:
    given, none = (Reference(*tiny, Schedule((Point(1, 0.25, n_query="question"),))) for _ in range(2))
    for lazy, span in ((given, (3, 9)), (none, None)):
        lazy.eval(prompt(40), (39, 40))
        lazy.eval(prompt(5, seed=1), span)
    np.testing.assert_array_equal(given.scores[0], none.scores[0])


def test_the_question_and_the_newest_token_ask_while_an_answer_is_decoded(tiny: Tiny) -> None:
    lazy = Reference(*tiny, Schedule((Point(1, 0.25, n_query="question"),)))
    lazy.eval(prompt(40), (30, 33))
    for token in prompt(3, seed=1):
        lazy.eval([token])
        assert sorted(lazy.looks[0]) == [30, 31, 32, lazy.n_tokens - 1]


def test_a_window_slides_over_steps(tiny: Tiny) -> None:
    lazy = Reference(*tiny, Schedule((Point(1, 0.25, n_query=4),)))
    lazy.eval(prompt(40))
    for token in prompt(3, seed=1):
        lazy.eval([token])
        assert sorted(lazy.looks[0]) == list(range(lazy.n_tokens - 4, lazy.n_tokens))


def test_a_decode_step_revives_no_more_than_its_budget(tiny: Tiny) -> None:
    points = (Point(1, 0.5), Point(2, 0.4), Point(3, 0.25))
    lazy = Reference(*tiny, Schedule(points, max_revive=4))
    lazy.eval(prompt(100))
    for token in prompt(8, seed=1):
        lazy.eval([token])
        assert lazy.n_revived <= 4
        for before, after in zip(lazy.computed, lazy.computed[1:]):
            assert len(set(after) - set(before)) <= 4


def test_what_decode_steps_leave_over_is_saved_for_later_ones(tiny: Tiny) -> None:
    lazy = Reference(*tiny, Schedule((Point(1, 0.5), Point(3, 0.25)), max_revive=6, mean_revive=1.5))
    lazy.eval(prompt(100))
    back = []
    for token in prompt(12, seed=1):
        lazy.eval([token])
        back.append(lazy.n_revived)
        assert lazy.n_revived <= 6
        assert sum(back) <= 6 + 1.5 * (len(back) - 1)
    assert max(back) > 2  # more than a step's mean at once
    lazy.trim(100)
    lazy.eval([7])
    assert lazy.n_revived > 2  # again as after a prompt


# ---- the tiny files ----


@pytest.mark.parametrize(("arch", "tokenizer"), [("llama", "spm"), ("llama", "bpe"), ("qwen2", "bpe")])
@pytest.mark.parametrize("n_vocab", [262, 320, 512])
def test_tokenizers_give_the_text_back(tmp_path: Path, arch: str, tokenizer: str, n_vocab: int) -> None:
    config = TinyConfig(arch=arch, tokenizer=tokenizer, n_vocab=n_vocab, n_layer=2)
    tiny_gguf.write_tiny_gguf(tmp_path / "tiny.gguf", config)
    model = llama_cpp.Llama(str(tmp_path / "tiny.gguf"), vocab_only=True, verbose=False)
    text = "the singer is on the other land, été!\n".encode()
    ids = model.tokenize(text, add_bos=False)
    assert model.n_vocab() == n_vocab
    assert model.detokenize(ids).lstrip(b" ") == text  # SPM puts a space before the first word
    assert n_vocab < 320 or len(ids) < len(text)
    assert model.metadata["tokenizer.chat_template"] == tiny_gguf.CHATML
    if tokenizer == "bpe":
        assert model.tokenize(b"<|im_end|>", add_bos=False, special=True) == [model.token_eos()]
    model.close()


def test_overrides_change_what_is_written(tmp_path: Path) -> None:
    def change(kv: dict[str, tiny_gguf.Kv], tensors: dict[str, tiny_gguf.Tensor]) -> None:
        kv["llama.attention.head_count"] = kv["llama.attention.head_count"]._replace(value=0)
        del tensors["output_norm.weight"]
        values = tensors["output.weight"].values()
        tensors["output.weight"] = tiny_gguf.Tensor.of(values, "Q8_0")

    weights = tiny_gguf.write_tiny_gguf(tmp_path / "tiny.gguf", TinyConfig(), overrides=change)
    assert "output_norm.weight" not in weights
    with pytest.raises(ValueError, match="Failed to load model"):
        llama_cpp.Llama(str(tmp_path / "tiny.gguf"), verbose=False)
