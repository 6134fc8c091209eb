"""Strings of JSON schemas: patterns and formats in the form that llguidance reads as meant.

JSON Schema's patterns are those of ECMA-262, llguidance's are those of Rust's regex crate. Owns what differs between
them without an error: it is rewritten here, or refused. What Rust refuses (look-around, back references, \\b) is
llguidance's to refuse.
"""

from __future__ import annotations

from typing import Any

FORMATS = ("date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")

_SPACE = r"\t\n\x0B\x0C\r \u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF"  # Rust has U+0085, no U+FEFF
_LINE_ENDS = r"\n\r\u2028\u2029"  # what "." does not match; in Rust \n only
_ESCAPES = "dDwWsStnvfrxupPbB0123456789ck"  # letters and digits that ECMA-262 has after a backslash

_DAY = (  # no February 29 in other years than leap years, which llguidance's own date has
    "(?:[0-9]{4}-(?:0[13-9]|1[0-2])-[0-9]{2}|[0-9]{4}-02-(?:[01][0-9]|2[0-8])"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME = "[0-9]{2}:[0-9]{2}:[0-5]"  # no leap seconds: they are valid in one minute of the day only, by the offset
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9]|[a-zA-Z0-9-](?:[a-zA-Z0-9]|-[a-zA-Z0-9])(?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)?"
_NARROWER: dict[str, dict[str, Any]] = {
    "date": {"pattern": f"^{_DAY}$"},
    "time": {"pattern": f"^{_TIME}"},
    "date-time": {"pattern": f"^{_DAY}[tT]{_TIME}"},
    # no label of another script ("xn--"), which is checked by tables; 253 characters are the most
    "hostname": {"pattern": f"^{_LABEL}(?:\\.{_LABEL})*$", "maxLength": 253},
}
_BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def with_format(name: str) -> dict[str, Any]:
    """A schema of the strings that a format allows: a part of them where llguidance's rule is too wide."""
    return {"type": "string", "format": name, **_NARROWER.get(name, {})}


def with_encoding(name: str) -> dict[str, Any]:
    """A schema of the strings that are data in an encoding.

    Raises:
        ValueError: another encoding than base64.
    """
    if name != "base64":
        raise ValueError('expected "base64"')
    return {"type": "string", "pattern": _BASE64}


def rust_pattern(pattern: str) -> str:
    """A pattern of ECMA-262 for Rust's regex crate, which matches the same.

    Raises:
        ValueError: it holds something that Rust reads in another way, or that ECMA-262 does not have.
    """
    out: list[str] = []
    in_class = False
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            out.append(_escape(pattern[at + 1 : at + 2], in_class))
            at += 2
            continue
        if in_class:
            if pattern.startswith("--", at):
                raise ValueError('"--" inside [] is not supported, write \\-')
            out.append("\\" + char if char in "[&~" else char)  # these begin nested classes and set operations
            in_class = char != "]"
        elif char == "[":
            in_class = True
            begin = pattern[at : at + 2] if pattern.startswith("[^", at) else "["
            if pattern.startswith("]", at + len(begin)):
                raise ValueError('"[]" and "[^]" are not supported')
            out.append(begin)
            at += len(begin) - 1
        elif char == ".":
            out.append(f"[^{_LINE_ENDS}]")
        elif pattern.startswith("(?", at) and pattern[at + 2 : at + 3] not in (":", "=", "!", "<"):
            raise ValueError(f'"{pattern[at : at + 3]}" is not in ECMA-262')
        elif pattern.startswith("{,", at):
            raise ValueError('"{,n}" is not in ECMA-262, write {0,n}')
        else:
            out.append(char)
        at += 1
    return "".join(out)


def _escape(letter: str, in_class: bool) -> str:
    """What stands for a backslash and a letter."""
    if letter == "s":
        return _SPACE if in_class else f"[{_SPACE}]"
    if letter == "S":
        return f"[^{_SPACE}]"
    if letter.isalnum() and letter not in _ESCAPES:
        raise ValueError(f'"\\{letter}" is not in ECMA-262')
    if letter in ("<", ">"):  # ends of words in Rust
        return letter
    return "\\/"[1:] if letter == "/" else "\\" + letter
