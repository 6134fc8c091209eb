"""Whatever the chunks, the joined stream is the text of one chunk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazygguf.text.stream import TextStream, find_stop

# few letters, so that stop strings and their beginnings are met often; valid, cut and invalid UTF-8
TEXT = st.one_of(
    st.binary(max_size=60),
    st.text("ab#é世😀", max_size=40).map(str.encode),
    st.text("ab#é世😀", max_size=40).map(lambda text: text.encode()[:-1]),
)
STOPS = st.lists(st.text("ab#é世\ufffd", min_size=1, max_size=4), max_size=4)


def run(chunks: list[bytes], stops: list[str]) -> tuple[str, bool]:
    stream = TextStream(stops)
    return "".join([*map(stream.feed, chunks), stream.finish()]), stream.stopped


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    data = draw(TEXT)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    edges = [0, *cuts, len(data)]
    return data, [data[begin:end] for begin, end in zip(edges, edges[1:])]


@given(chunked(), STOPS)
def test_the_joined_stream_does_not_depend_on_the_chunks(parts: tuple[bytes, list[bytes]], stops: list[str]) -> None:
    data, chunks = parts
    assert run(chunks, stops) == run([data], stops)


@given(chunked())
def test_without_stop_strings_the_joined_stream_is_the_decoded_text(parts: tuple[bytes, list[bytes]]) -> None:
    data, chunks = parts
    assert run(chunks, []) == (data.decode("utf-8", "replace"), False)


@given(chunked(), STOPS)
def test_the_stream_is_the_text_up_to_the_first_complete_stop_string(
    parts: tuple[bytes, list[bytes]], stops: list[str]
) -> None:
    data, chunks = parts
    text = data.decode("utf-8", "replace")
    cut = find_stop(text, stops)
    assert run(chunks, stops) == ((text if cut is None else text[:cut]), cut is not None)
