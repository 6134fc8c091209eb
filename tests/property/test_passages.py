"""Passages of any text."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lazygguf.text.passages import MAX_WORDS, best_passages, lines_of, n_words

TEXTS = st.lists(
    st.sampled_from(
        [
            *("word", "A", "Word", ".", "! ", "? ", " ", "  ", "\n", "\r\n", "\n\n", "\t", "1.5", '"', "-", "x" * 40),
            *("\u6c34", "\u3002", "\U0001f600", "e\u0301", "\u2028", "\r"),
        ]
    ),
    max_size=80,
).map("".join)


@given(TEXTS, st.integers(1, 5), st.data())
def test_passages_are_apart_in_range_short_and_hold_no_left_out_part(text: str, n: int, data: st.DataObject) -> None:
    values = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(text), max_size=len(text))))
    cut = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=2)))
    found = best_passages(text, values, n, [(cut[0], cut[1])])
    assert len(found) <= n
    free = np.ones(len(text), bool)
    free[cut[0] : cut[1]] = False
    for passage in found:
        assert 0 <= passage.start < passage.end <= len(text)
        part = text[passage.start : passage.end]
        assert part == part.strip() and n_words(part) <= MAX_WORDS
        assert free[passage.start : passage.end].all()
        assert values[passage.start : passage.end].max() > 0
        free[passage.start : passage.end] = False
        first, last = lines_of(text, passage.start, passage.end)
        lines = text.split("\n")
        assert part.split("\n")[0] in lines[first - 1] and part.split("\n")[-1] in lines[last - 1]
        assert last - first == part.count("\n")
    peaks = [values[passage.start : passage.end].max() for passage in found]
    assert peaks == sorted(peaks, reverse=True)
