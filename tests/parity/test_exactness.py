"""No form in which a matrix is multiplied is less exact than the rounding of its rows makes it.

Every kernel for quantized matrices, ggml's and ours, first rounds a row to 8 bits, in blocks whose step is their
largest magnitude / 127. A value that is rounded to the nearest step is off by anything from -1/2 to 1/2 step: 0 on
average, with a variance of step^2 / 12. A matrix W makes W e of the errors e of a row, so the mean of |W e|^2, and how
far it scatters, follow from W and the row. One matrix is multiplied here with so many independent rows that their sum
scatters little, and it may lie three standard deviations above its mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from tiny_gguf import Tensor, TinyConfig, write_changed

from lazygguf._ffi import NativeModel, NativeSession

N_EMBD = 256  # whole blocks of every type
N_ROWS = 128  # three standard deviations are 4 % of the mean then
OUR_BLOCK = 32


# ---- what the arithmetic says ----


def variance_of_8_bits(rows: np.ndarray, block: int) -> np.ndarray:
    """Of each value's rounding error, (n_rows, n_in)."""
    blocks = np.abs(rows).reshape(len(rows), -1, block)
    largest = blocks.max(axis=-1, keepdims=True)
    variance = (largest / 127) ** 2 / 12
    variance = np.where(blocks < largest, variance, 0.0)  # the largest is 127 steps, without error
    return variance.reshape(rows.shape)


def bound(weights: np.ndarray, rows: np.ndarray, variance: np.ndarray) -> float:
    """What the squared errors of all products may add up to.

    Args:
        weights: the matrix, (n_out, n_in).
        rows: what it is multiplied with, (n_rows, n_in).
        variance: of the errors of the rows' values, (n_rows, n_in).
    """
    gram = weights.T @ weights
    mean = np.sum(variance @ np.diag(gram))
    # of errors with a normal distribution, whose squares scatter more
    return float(mean + 3 * np.sqrt(2 * np.sum(variance @ gram**2 * variance)))


def of_f16_scales(weights: np.ndarray, rows: np.ndarray, has_minimum: bool) -> float:
    """What comes on top where a block of 32 has an F16 scale, and an F16 sum that the weights' minimum goes with.

    F16 rounds by 2^-11 of the value at most, so the mean of the square is 2^-22 / 3 of its square at most.
    """
    x, w = rows.reshape(len(rows), -1, 32), weights.reshape(len(weights), -1, 32)
    products = np.einsum("rbi,obi->rob", x, w)
    minima = np.einsum("rb,ob->rob", x.sum(axis=-1), w.min(axis=-1)) if has_minimum else np.zeros(1)
    return float(2.0**-22 / 3 * np.sum((products - minima) ** 2 + minima**2))


# ---- one matrix, multiplied by a model ----


class OneMatrix:
    """A model that multiplies a row with one quantized matrix, and rounds nowhere else to less than F32.

    One layer, in F32 but for the matrix that makes the values of attention. A prompt that repeats one token has the
    same values at every position, which attention gives back, however it weighs them. Hidden rows are about 2^-10: a
    norm adds 1 to the mean of their squares, so it only multiplies with its weight, and the output projection of
    attention makes the values as small. The feed-forward part adds nothing. The logits are what is left.
    """

    SMALL = 2.0**-10

    def __init__(self, path: Path, weight_type: str) -> None:
        self.path = path
        rng = np.random.default_rng(7)
        config = TinyConfig(n_embd=N_EMBD, n_layer=1, n_head=2, n_head_kv=2, n_ff=32, rms_eps=1.0)
        matrix = Tensor.of(rng.normal(0.0, N_EMBD**-0.5, (N_EMBD, N_EMBD)), weight_type)
        rows = rng.normal(0.0, 1.0, (config.n_vocab, N_EMBD)).astype(np.float32)
        tensors = {
            "token_embd.weight": rows * self.SMALL,
            "blk.0.attn_norm.weight": np.full(N_EMBD, 1 / self.SMALL),
            "blk.0.attn_output.weight": np.eye(N_EMBD) * self.SMALL,
            "blk.0.ffn_down.weight": np.zeros((N_EMBD, config.n_ff)),
            "output_norm.weight": np.full(N_EMBD, 1 / self.SMALL),
            "output.weight": np.eye(config.n_vocab, N_EMBD),
        }
        changed = {name: Tensor.of(values) for name, values in tensors.items()}
        write_changed(path, config, tensors={**changed, "blk.0.attn_v.weight": matrix})
        self.weights = matrix.values().astype(np.float64)  # (n_out, n_in)
        self.rows = rows[:N_ROWS].astype(np.float64)  # (n_rows, n_in), what is multiplied

    def squared_error(self, model: NativeModel, n_copies: int) -> float:
        """Of all products, each computed with n_copies of its row at once."""
        session = NativeSession(model, n_ctx=64, type_k="f32", type_v="f32")
        total = 0.0
        for token, row in enumerate(self.rows):
            session.reset()
            session.eval([token] * n_copies)
            logits = session.logits()
            assert logits is not None
            total += float(np.sum((logits[:N_EMBD] - row - self.weights @ row) ** 2))
        return total


@pytest.mark.parametrize("weight_type", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"])
def test_no_form_of_a_matrix_is_less_exact_than_the_files_own_or_than_its_rounding(
    path: Path, weight_type: str
) -> None:
    one = OneMatrix(path, weight_type)
    weights, rows = one.weights, one.rows
    block = GGML_QUANT_SIZES[GGMLQuantizationType[weight_type]][0]  # ggml rounds rows in blocks as long as the weights'
    of_file = bound(weights, rows, variance_of_8_bits(rows, block))
    if block == 32:
        of_file += of_f16_scales(weights, rows, has_minimum=weight_type.endswith("_1"))
    of_ours = bound(weights, rows, variance_of_8_bits(rows, OUR_BLOCK))  # its scales are F32
    assert of_ours <= of_file

    measured = [
        ("as-is", 1, of_file),
        ("as-is", 20, of_file),
        ("fast", 1, of_ours),
        ("fast", 3, of_ours),  # rows that go through the matrix together
        ("fast", 20, of_ours),  # and in groups
    ]
    for form, n_copies, limit in measured:
        assert one.squared_error(NativeModel(path, weights=form), n_copies) <= limit, (form, n_copies)


@pytest.mark.parametrize("weight_type", ["F32", "F16", "BF16"])
def test_matrices_of_floats_are_multiplied_in_single_precision(path: Path, weight_type: str) -> None:
    one = OneMatrix(path, weight_type)
    size = float(np.sum((one.rows @ one.weights.T) ** 2))
    # rows rounded to F16 would give 1e-8 of the size; the norm's 1 in 1 + 2^-20 alone gives 1e-12
    for n_copies in (1, 3, 20):
        assert one.squared_error(NativeModel(path, weights="fast"), n_copies) <= 1e-11 * size, n_copies


# ---- the bounds tell right from wrong ----


def in_steps(rows: np.ndarray, n_steps: int = 127, *, to_zero: bool = False, scale: float = 1.0) -> np.ndarray:
    """Rows as a kernel would see them that rounds to largest magnitude / n_steps, and multiplies by a scale after."""
    blocks = rows.reshape(len(rows), -1, OUR_BLOCK)
    step = np.abs(blocks).max(axis=-1, keepdims=True) / n_steps
    steps = np.trunc(blocks / step) if to_zero else np.rint(blocks / step)
    used: np.ndarray = steps * step * scale
    return used.reshape(rows.shape)


def test_the_bounds_hold_for_right_rounding_and_for_nothing_worse(path: Path) -> None:
    one = OneMatrix(path, "Q4_1")

    def squared_error(used_rows: np.ndarray, used: np.ndarray) -> float:
        return float(np.sum((used_rows @ used.T - one.rows @ one.weights.T) ** 2))

    of_8_bits = bound(one.weights, one.rows, variance_of_8_bits(one.rows, OUR_BLOCK))
    assert 0.9 * of_8_bits < squared_error(in_steps(one.rows), one.weights) <= of_8_bits
    for wrong in (
        in_steps(one.rows, to_zero=True),
        in_steps(one.rows, 120),
        in_steps(one.rows, scale=127 / 128),
        in_steps(np.roll(one.rows, 1, axis=1)),
    ):
        assert squared_error(wrong, one.weights) > of_8_bits
