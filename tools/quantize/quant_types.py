"""The types that llama.cpp's quantizer makes, and about how many bits a weight takes in each."""

from __future__ import annotations

import difflib
from typing import NamedTuple

import gguf


class QuantType(NamedTuple):
    name: str
    ftype: int  # llama_ftype
    bits: float  # a weight, for size estimates; the mixes depend a little on the model


def _types() -> dict[str, QuantType]:
    bits = {
        "Q1_0": 1.125,
        "Q2_0": 2.25,
        "Q4_0": 4.6,
        "Q4_1": 5.1,
        "MXFP4_MOE": 4.5,
        "Q5_0": 5.6,
        "Q5_1": 6.1,
        "IQ2_XXS": 2.4,
        "IQ2_XS": 2.6,
        "IQ2_S": 2.8,
        "IQ2_M": 3.0,
        "IQ1_S": 2.0,
        "IQ1_M": 2.2,
        "TQ1_0": 1.9,
        "TQ2_0": 2.3,
        "Q2_K": 3.4,
        "Q2_K_S": 3.2,
        "IQ3_XXS": 3.3,
        "IQ3_S": 3.7,
        "IQ3_M": 3.9,
        "IQ3_XS": 3.5,
        "Q3_K_S": 3.7,
        "Q3_K_M": 4.0,
        "Q3_K_L": 4.3,
        "IQ4_NL": 4.7,
        "IQ4_XS": 4.5,
        "Q4_K_S": 4.7,
        "Q4_K_M": 4.9,
        "Q5_K_S": 5.6,
        "Q5_K_M": 5.7,
        "Q6_K": 6.6,
        "Q8_0": 8.5,
        "F16": 16.0,
        "BF16": 16.0,
        "F32": 32.0,
    }
    numbers = {"F32": 0, "Q1_0": 40, "Q2_0": 41}  # the latter two are newer than the gguf package
    known = {member.name: int(member) for member in gguf.LlamaFileType}
    return {name: QuantType(name, numbers.get(name, known.get(f"MOSTLY_{name}", -1)), b) for name, b in bits.items()}


QUANT_TYPES = _types()
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
COPY = "COPY"  # keeps every tensor as it is


def quant_type(name: str) -> QuantType:
    """The type of a name in any case, aliases included.

    Raises:
        ValueError: There is none; the message gives the nearest names.
    """
    upper = name.upper()
    upper = ALIASES.get(upper, upper)
    if upper == COPY:
        return QuantType(COPY, 0, 32.0)
    if upper not in QUANT_TYPES:
        raise ValueError(_unknown("quantization type", name, list(QUANT_TYPES)))
    return QUANT_TYPES[upper]


def tensor_type(name: str) -> int:
    """The ggml_type of a name such as q6_K, in any case."""
    by_name = {member.name.upper(): int(member) for member in gguf.GGMLQuantizationType}
    for integer in ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"):
        by_name.pop(integer, None)
    if name.upper() not in by_name:
        raise ValueError(_unknown("tensor type", name, list(by_name)))
    return by_name[name.upper()]


def _unknown(what: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name.upper(), names, n=3) or names
    return f"{what} {name!r} is not known; {', '.join(near)}"
