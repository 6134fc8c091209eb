"""Tokens of one vocabulary matched with another's, over random text: none is lost, none is shifted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from tiny_gguf import TinyConfig, write_tiny_gguf

from lazygguf.text.offsets import clean_text, shared_max, spans_of, token_spans, tokens_over
from lazygguf.text.tokenizer import Tokenizer

# characters of 1 to 4 bytes, joined ones, controls, and the texts of control tokens and of SentencePiece's own space
_PIECES = [
    "<|im_start|>",
    "<|im_end|>",
    "<s>",
    "</s>",
    "\u2581",
    " ",
    "  ",
    "\n\n",
    "é",
    "世界",
    "😀",
    "\x00",
    "ﷺ",
    "the ",
]
_PIECES += ["\N{WOMAN}\u200d\N{WOMAN}\u200d\N{GIRL}"]
TEXTS = st.lists(st.sampled_from(_PIECES) | st.text(max_size=6), max_size=30).map("".join)
Pieces = Callable[[Tokenizer, bytes], list[bytes]]


@pytest.fixture(scope="module", params=["bpe", "spm"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokenizer]:
    path = tmp_path_factory.mktemp("vocab") / "tiny.gguf"
    write_tiny_gguf(path, TinyConfig(tokenizer=request.param))
    tokenizer = Tokenizer(str(path))
    yield tokenizer
    tokenizer.close()


@pytest.fixture(scope="module")
def real(smollm2_path: Path, qwen_path: Path) -> Iterator[tuple[Tokenizer, Tokenizer]]:
    pair = Tokenizer(str(smollm2_path)), Tokenizer(str(qwen_path))
    yield pair
    for tokenizer in pair:
        tokenizer.close()


def pieces_of(tokenizer: Tokenizer, text: bytes) -> list[bytes]:
    return [tokenizer.piece(token, special=True) for token in tokenizer.tokenize(text, add_bos=False, special=True)]


def text_bytes(text: str) -> bytes:
    return clean_text(text.encode("utf-8", "replace"))


def assert_covers(text: bytes, pieces: list[bytes]) -> None:
    """Every byte belongs to one token, in order, and each token's bytes stand at its place.

    A place is longer than its token only by bytes that the vocabulary does not have (of control characters and of
    planes that nobody writes), which a tokenizer leaves out.
    """
    spans = token_spans(text, pieces)
    assert len(spans) == len(pieces)
    cursor, n_left_out = 0, len(text) - len(b"".join(pieces))
    for piece, (begin, end) in zip(pieces, spans.tolist()):
        assert begin == cursor
        bare = piece[1:] if piece[:1] == b" " and text[begin : begin + 1] != b" " else piece
        assert bare in text[begin:end]
        n_left_out += len(piece) - len(bare) - (end - begin - len(bare))
        cursor = end
    assert (cursor, n_left_out) == (len(text) if pieces else 0, 0 if pieces else len(text))


def slow_max(values: np.ndarray, spans: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The definition: byte by byte."""
    out = np.full(len(wanted), np.nan, np.float32)
    for i, (begin, end) in enumerate(wanted.tolist()):
        owned = [float(v) for v, (b, e) in zip(values, spans.tolist()) if any(b <= at < e for at in range(begin, end))]
        if owned:
            out[i] = max(owned)
    return out


@given(text=TEXTS)
@settings(max_examples=200)
def test_every_byte_of_a_text_belongs_to_one_token(tiny: Tokenizer, text: str) -> None:
    data = text_bytes(text)
    assert_covers(data, pieces_of(tiny, data))


@pytest.mark.model
@given(text=TEXTS)
@settings(max_examples=200)
def test_every_byte_of_a_text_belongs_to_one_token_of_real_vocabularies(
    real: tuple[Tokenizer, Tokenizer], text: str
) -> None:
    data = text_bytes(text)
    for tokenizer in real:
        assert_covers(data, pieces_of(tokenizer, data))


@pytest.mark.model
@given(text=TEXTS, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_every_token_gets_the_highest_score_of_the_tokens_it_shares_bytes_with(
    real: tuple[Tokenizer, Tokenizer], text: str, seed: int
) -> None:
    data = text_bytes(text)
    for draft, target in (real, real[::-1]):
        theirs, ours = pieces_of(draft, data), pieces_of(target, data)
        values = np.random.default_rng(seed).random(len(theirs), dtype=np.float32)
        spans, wanted = token_spans(data, theirs), token_spans(data, ours)
        mapped = shared_max(values, spans, wanted)
        np.testing.assert_array_equal(mapped, slow_max(values, spans, wanted))
        if not theirs or not ours:
            continue
        assert not np.isnan(mapped).any()  # none is lost
        np.testing.assert_array_equal(shared_max(mapped, wanted, spans) >= values, True)  # none is shifted


@given(cuts=st.lists(st.integers(0, 40), max_size=12), others=st.lists(st.integers(0, 40), max_size=12), data=st.data())
def test_numbers_go_over_to_any_other_cut_of_the_text(cuts: list[int], others: list[int], data: st.DataObject) -> None:
    text = bytes(range(65, 105))
    ours, theirs = (
        [text[b:e] for b, e in zip([0, *sorted(c)], [*sorted(c), len(text)])] for c in (cuts, others)
    )  # with empty pieces
    values = np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(theirs), max_size=len(theirs))), "f4")
    spans, wanted = token_spans(text, theirs), spans_of(ours)
    np.testing.assert_array_equal(shared_max(values, spans, wanted), slow_max(values, spans, wanted))


def test_a_space_that_the_tokenizer_put_in_covers_nothing() -> None:
    assert token_spans(b"ab c", [b" ab", b" c"]).tolist() == [[0, 2], [2, 4]]
    assert token_spans(b"<s>ab", [b"<s>", b" ", b"ab"]).tolist() == [[0, 3], [3, 3], [3, 5]]
    assert token_spans(b" ab", [b" ", b" ab"]).tolist() == [[0, 1], [1, 3]]


def test_unknown_tokens_cover_what_lies_between_their_neighbours() -> None:
    assert token_spans(b"ab\xc3\xa9 cd", [b"ab", b"<unk>", b" cd"]).tolist() == [[0, 2], [2, 4], [4, 7]]
    assert token_spans("世界 x".encode(), [b"?", b"?", b" x"]).tolist() == [[0, 6], [0, 6], [6, 8]]
    assert token_spans(b"ab", [b"ab", b"?"]).tolist() == [[0, 2], [2, 2]]
    values = np.array([1, 3, 2], np.float32)
    mapped = shared_max(values, token_spans("世界 x".encode(), [b"?", b"?", b" x"]), spans_of(["世界".encode(), b" x"]))
    assert mapped.tolist() == [3, 2]


@given(text=st.binary(max_size=40))
def test_bytes_that_are_no_text_become_question_marks_at_the_same_offsets(text: bytes) -> None:
    clean = clean_text(text)
    assert len(clean) == len(text)
    clean.decode("utf-8")
    assert all(a == b or b == ord("?") for a, b in zip(text, clean))


def test_tokens_over_bytes_are_all_that_touch_them() -> None:
    spans = spans_of([b"ab", b"", b"cde", b"f"])
    assert tokens_over(spans, 1, 3) == (0, 3)
    assert tokens_over(spans, 2, 3) == (2, 3)
    assert tokens_over(spans, 5, 6) == (3, 4)
    assert tokens_over(spans, 6, 6) == (4, 4)
