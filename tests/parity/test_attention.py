"""Recorded attention is held to the NumPy reference, layer by layer and head by head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reference import Reference
from tiny_gguf import ARCHS, TinyConfig, write_tiny_gguf

from lazygguf import KeepSchedule, PruningPoint
from lazygguf._ffi import AttentionRequest, NativeModel, NativeSession
from lazygguf.errors import Cancelled, ContextFullError, LazyError
from lazygguf.read.attention import AttentionReader

Write = Callable[[TinyConfig], tuple[Path, dict[str, np.ndarray]]]

# F32 weights and K/V: the worst difference of two softmax rows, absolute. Measured 2e-6.
CLOSE = 1e-5
N_LAYER = TinyConfig().n_layer


def prompt(n: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, 320, n)]


def expected_rows(
    weights: dict[str, np.ndarray], config: TinyConfig, ids: list[int], span: tuple[int, int]
) -> np.ndarray:
    """(n_layer, n_query, n_head, n_tokens)"""
    reference = Reference(weights, config)
    reference.eval(ids)
    return np.stack([layer[:, span[0] : span[1]].transpose(1, 0, 2) for layer in reference.attention])


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("span", "n_ubatch"), [((89, 90), 512), ((40, 90), 512), ((40, 88), 16), ((10, 12), 32)])
def test_every_head_of_every_layer_looks_where_the_reference_looks(
    tiny_model: Write, arch: str, span: tuple[int, int], n_ubatch: int
) -> None:
    config = TinyConfig(arch=arch)
    path, weights = tiny_model(config)
    ids = prompt(90)
    with AttentionReader(NativeModel(path), n_ctx=128, n_ubatch=n_ubatch, type_kv="f32") as reader:
        rows = reader.read(ids, span, by_head=True)
    expected = expected_rows(weights, config, ids, span)
    assert rows.shape == expected.shape == (config.n_layer, span[1] - span[0], config.n_head, 90)
    assert np.abs(rows - expected).max() <= CLOSE
    assert np.abs(rows.sum(axis=-1) - 1.0).max() <= 1e-5


@pytest.mark.parametrize("n_ubatch", [512, 16])
def test_without_heads_the_mean_over_heads_and_asking_rows_comes_out(tiny_model: Write, n_ubatch: int) -> None:
    config = TinyConfig()
    path, weights = tiny_model(config)
    ids, span = prompt(90), (50, 80)
    with AttentionReader(NativeModel(path), n_ctx=128, n_ubatch=n_ubatch, type_kv="f32") as reader:
        mean = reader.read(ids, span, layers=[1, 3])
    assert mean.shape == (2, 90)
    expected = expected_rows(weights, config, ids, span)[[1, 3]].mean(axis=(1, 2))
    assert np.abs(mean - expected).max() <= CLOSE


@pytest.mark.parametrize(("span", "n_ubatch"), [((89, 90), 512), ((40, 88), 16)])
def test_by_query_it_is_the_mean_over_the_heads_of_each_asking_row(
    tiny_model: Write, span: tuple[int, int], n_ubatch: int
) -> None:
    config = TinyConfig()
    path, weights = tiny_model(config)
    ids = prompt(90)
    with AttentionReader(NativeModel(path), n_ctx=128, n_ubatch=n_ubatch, type_kv="f32") as reader:
        rows = reader.read(ids, span, layers=[1, 3], by_query=True)
    assert rows.shape == (2, span[1] - span[0], 90)
    expected = expected_rows(weights, config, ids, span)[[1, 3]].mean(axis=2)
    assert np.abs(rows - expected).max() <= CLOSE


@pytest.mark.parametrize("form", ["mean", "query", "head"])
@pytest.mark.parametrize("type_kv", ["f16", "q8_0"])
def test_on_the_cpu_it_has_the_same_bits_in_ubatches_of_any_size(tiny_model: Write, form: str, type_kv: str) -> None:
    path, _ = tiny_model(TinyConfig(n_embd=128))
    model = NativeModel(path, weights="fast")
    ids, span = prompt(300), (150, 270)

    def read(n_ubatch: int, n_threads: int) -> np.ndarray:
        with AttentionReader(model, n_ctx=512, n_ubatch=n_ubatch, n_threads=n_threads, type_kv=type_kv) as reader:
            return reader.read(ids, span, by_head=form == "head", by_query=form == "query")

    expected = read(512, 2)
    for n_ubatch, n_threads in ((1, 1), (7, 3), (100, 2)):
        assert np.array_equal(read(n_ubatch, n_threads), expected)


@pytest.mark.parametrize("n_layer", range(1, N_LAYER + 1))
def test_a_reader_that_stops_early_sees_what_the_whole_model_sees_there(tiny_model: Write, n_layer: int) -> None:
    path, _ = tiny_model(TinyConfig())
    ids, span = prompt(70), (60, 70)
    weights = NativeModel(path)
    with AttentionReader(weights, n_ctx=128) as whole, AttentionReader(weights, n_layer, n_ctx=128) as part:
        expected = whole.read(ids, span, by_head=True)
        rows = part.read(ids, span, by_head=True)
    assert rows.shape[0] == n_layer
    assert np.array_equal(rows, expected[:n_layer])


def test_a_reader_that_stops_early_holds_no_more_layers_and_gives_no_logits(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig())
    model = NativeModel(path)
    part, whole = NativeSession(model, n_ctx=128, n_layer=2), NativeSession(model, n_ctx=128)
    for session in (part, whole):
        session.eval(prompt(50))
    assert part.logits() is None
    assert whole.logits() is not None
    assert part.stats().n_layers == [2]
    assert part.stats().kv_bytes * N_LAYER == whole.stats().kv_bytes * 2


def test_what_two_prompts_share_is_read_once(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig())
    weights = NativeModel(path)
    text, first, second = prompt(80), prompt(10, seed=1), prompt(14, seed=2)
    reader = AttentionReader(weights, n_ctx=128, type_kv="f32")
    with reader, AttentionReader(weights, n_ctx=128, type_kv="f32") as fresh:
        reader.read(text + first, (82, 90))
        again = reader.read(text + second, (82, 94), by_head=True)
        assert reader.n_read == 14
        assert reader.ids == text + second
        expected = fresh.read(text + second, (82, 94), by_head=True)
        assert np.abs(again - expected).max() <= CLOSE
        reader.read(text + second, (70, 75))  # who asks is read again
        assert reader.n_read == 24


def test_recording_does_not_change_the_logits(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig())
    model = NativeModel(path)
    plain, recorded = NativeSession(model, n_ctx=128), NativeSession(model, n_ctx=128)
    plain.eval(prompt(100))
    rows = recorded.eval(prompt(100), (90, 100), attention=AttentionRequest(tuple(range(N_LAYER)), True))
    assert rows is not None
    logits, expected = recorded.logits(), plain.logits()
    assert logits is not None and expected is not None
    assert np.array_equal(logits, expected)


def test_a_cancelled_read_leaves_what_was_there_before_what_is_new(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig())

    def stop(n_done: int, n_total: int) -> None:
        raise Cancelled("enough")

    with AttentionReader(NativeModel(path), n_ctx=128, n_ubatch=16, type_kv="f32") as reader:
        text = prompt(60)
        expected = reader.read(text, (50, 60), by_head=True)
        with pytest.raises(Cancelled):
            reader.read(text[:40] + prompt(40, seed=3), (70, 80), progress=stop)
        assert reader.ids == text[:40]
        assert np.abs(reader.read(text, (50, 60), by_head=True) - expected).max() <= CLOSE
        assert reader.n_read == 20


@pytest.mark.parametrize(
    ("span", "layers", "message"),
    [
        ((5, 5), None, r"query_span is \[5, 5\), expected 1 to 128 of the 60 tokens"),
        ((50, 61), None, r"query_span is \[50, 61\)"),
        ((-1, 3), None, r"query_span is \[-1, 3\)"),
        ((50, 60), [1, 1], "attention of layer 1 after 1 is wanted"),
        ((50, 60), [N_LAYER], f"attention of layer {N_LAYER} after -1 is wanted"),
        ((50, 60), [-1], "attention of layer -1 after -1 is wanted"),
        ((50, 60), [], "attention is wanted of no layer"),
    ],
    ids=str,
)
def test_a_span_or_layer_that_is_not_there_is_refused(
    tiny_model: Write, span: tuple[int, int], layers: list[int], message: str
) -> None:
    path, _ = tiny_model(TinyConfig())
    with AttentionReader(NativeModel(path), n_ctx=128) as reader:
        with pytest.raises(ValueError, match=message):
            reader.read(prompt(60), span, layers)
        reader.read(prompt(60), (50, 60))  # and it goes on


def test_what_is_asked_of_the_wrong_session_is_refused(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig())
    model = NativeModel(path)
    pruning = NativeSession(model, n_ctx=128, schedule=KeepSchedule.paper("1:0.5"))
    with pytest.raises(ValueError, match="without a keep schedule"):
        pruning.eval(prompt(60), (50, 60), attention=AttentionRequest((0,)))
    with pytest.raises(ValueError, match="n_layer is 2 with a keep schedule"):
        NativeSession(model, n_ctx=128, n_layer=2, schedule=KeepSchedule.paper("1:0.5"))
    with pytest.raises(ValueError, match=f"n_layer is {N_LAYER + 1}, expected a value in"):
        AttentionReader(model, N_LAYER + 1)
    dense = NativeSession(model, n_ctx=128)
    dense.eval(prompt(60))
    with pytest.raises(ValueError, match=r"query span is \[50, 70\), expected 1 to 128 of the new tokens, \[60, 70\)"):
        dense.eval(prompt(10), (50, 70), attention=AttentionRequest((0,)))


def test_too_many_tokens_are_refused_before_anything_is_forgotten(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig())
    with AttentionReader(NativeModel(path), n_ctx=64) as reader:
        reader.read(prompt(60), (50, 60))
        with pytest.raises(ContextFullError, match="65 tokens do not fit into a context of n_ctx 64"):
            reader.read(prompt(65), (50, 60))
        assert reader.ids == prompt(60)


@pytest.fixture
def nan_path(tmp_path: Path) -> Path:
    """A model whose second layer gives NaN."""
    path = tmp_path / "nan.gguf"
    weights = write_tiny_gguf(path, TinyConfig())
    data = bytearray(path.read_bytes())
    at = data.find(weights["blk.1.attn_norm.weight"].astype(np.float32).tobytes())
    assert at > 0
    data[at : at + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    return path


def test_weights_that_hold_nan_are_an_error_and_not_a_record(nan_path: Path) -> None:
    with AttentionReader(NativeModel(nan_path), 2, n_ctx=128) as reader:
        with pytest.raises(LazyError, match="attention is not finite"):
            reader.read(prompt(60), (50, 60))
        assert reader.ids == []


@pytest.mark.parametrize("query_max", [False, True])
def test_weights_that_hold_nan_are_an_error_and_not_a_score(nan_path: Path, query_max: bool) -> None:
    point = PruningPoint(2, 0.5, n_query=4, query_max=query_max)
    session = NativeSession(NativeModel(nan_path), n_ctx=128, schedule=KeepSchedule((point,), min_prompt=0))
    with pytest.raises(LazyError, match="attention is not finite"):
        session.eval(prompt(60))
    assert session.n_tokens == 0
