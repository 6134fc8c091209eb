"""Text from bytes: held-back characters and stop strings."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lazygguf.text.stream import TextStream, check_stops


def stream(chunks: Iterable[bytes], stops: list[str]) -> tuple[list[str], bool]:
    text = TextStream(stops)
    said = [text.feed(chunk) for chunk in chunks]
    return [*said, text.finish()], text.stopped


def test_a_character_over_several_tokens_comes_when_it_is_whole() -> None:
    assert stream([b"a\xf0", b"\x9f", b"\x98", b"\x80b"], [])[0] == ["a", "", "", "\U0001f600b", ""]


def test_an_unfinished_character_at_the_end_becomes_one_replacement() -> None:
    assert "".join(stream([b"a\xe4\xb8"], [])[0]) == "a\ufffd"


def test_an_invalid_byte_does_not_hold_back_what_follows() -> None:
    assert stream([b"a\xffb", b"c"], [])[0] == ["a\ufffdb", "c", ""]


def test_a_stop_string_over_several_chunks_ends_the_text() -> None:
    said, stopped = stream([b"one <|", b"im_", b"end|> two"], ["<|im_end|>"])
    assert ("".join(said), stopped) == ("one ", True)


def test_the_beginning_of_a_stop_string_is_given_out_when_it_does_not_go_on() -> None:
    assert stream([b"a#", b"#b"], ["###"])[0] == ["a", "##b", ""]
    assert stream([b"a##"], ["###"])[0] == ["a", "##"]


def test_the_stop_string_that_is_complete_first_counts() -> None:
    for chunks in ([b"xabcd"], [b"xab", b"cd"], [b"x", b"a", b"b", b"c", b"d"]):
        assert "".join(stream(chunks, ["abcd", "c"])[0]) == "xab"


def test_of_two_stop_strings_that_end_together_the_longer_counts() -> None:
    for chunks in ([b"x\n\nUser:"], [b"x\n", b"\nUser", b":"]):
        assert "".join(stream(chunks, ["User:", "\n\nUser:"])[0]) == "x"


def test_nothing_comes_after_a_stop() -> None:
    text = TextStream(["."])
    assert (text.feed(b"a.b"), text.feed(b"c"), text.finish()) == ("a", "", "")


def test_stop_strings_are_checked() -> None:
    assert check_stops(None) == []
    assert check_stops("x") == ["x"]
    assert check_stops(["", "x"]) == ["x"] and check_stops("") == []  # llama_cpp takes them too
    for bad in (["x"] * 1000, ["x" * 5000]):
        with pytest.raises(ValueError, match="stop"):
            check_stops(bad)
    with pytest.raises(TypeError, match="stop holds 3, expected text"):
        check_stops([3])  # type: ignore[list-item]
    for wrong in (3, b"x"):
        with pytest.raises(TypeError, match=r"stop is .*, expected text or a list of texts"):
            check_stops(wrong)  # type: ignore[arg-type]


def test_the_place_of_bytes_is_that_of_the_character_they_are_in() -> None:
    text = TextStream(["STOP"])
    found = []
    for data in (b"ab", b" S", b"TO", b"", b"\xf0\x9f", b"\x98", b"\x80", b"x\xe4", b"y"):
        found.append(text.offset_of(data))
        text.feed(data)
    assert found == [0, 2, 4, 6, 6, 6, 6, 7, 9]  # the byte before y becomes a replacement character
    text.finish()
    assert text.n_certain == len("ab STO\U0001f600x\ufffdy")
