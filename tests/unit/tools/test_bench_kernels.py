"""``lazygguf bench --kernels``: products of matrices, ours beside ggml's."""

from __future__ import annotations

import json

import lazygguf.tools.bench.kernels as kernels
import pytest

from lazygguf._ffi import isa, kernel_seconds
from lazygguf.cli.main import main


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "TYPES", ("F16", "Q4_K"))
    monkeypatch.setattr(kernels, "ROWS", (1, 3))
    monkeypatch.setattr(kernels, "N_IN", 256)
    monkeypatch.setattr(kernels, "N_OUT", 32)


def test_the_table_has_a_row_for_every_type(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--kernels", "-t", "1"]) == 0
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert f"lazygguf {isa()}, ggml " in head and "1 threads, 256 x 32" in head
    assert "1 rows" in columns and "3 rows" in columns
    assert [row.split()[0] for row in rows] == ["F16", "Q4_K"]


def test_records_name_the_instruction_set(small: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--kernels", "-t", "1", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [(r["type"], r["n_rows"]) for r in records] == [("F16", 1), ("F16", 3), ("Q4_K", 1), ("Q4_K", 3)]
    for record in records:
        assert record["isa"] == isa() and record["ours"] > 0 and record["ggml"] > 0
        assert record["ratio"] == pytest.approx(record["ours"] / record["ggml"])


def test_what_is_slower_is_named() -> None:
    rows = [kernels.KernelRow("Q4_K", n, ours, 100.0) for n, ours in ((1, 200.0), (64, 90.0), (512, 99.0))]
    assert kernels.verdict(rows) == "ggml is faster with 64 rows"
    assert kernels.verdict(rows[:1]) is None


def test_a_type_without_a_kernel_of_ours_takes_no_time() -> None:
    assert kernel_seconds("IQ3_S", 256, 32, 1) == 0.0
    assert kernel_seconds("IQ3_S", 256, 32, 1, is_ours=False) > 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Q9_Z", 256, 32, 1), "there is no type 'Q9_Z'"),
        (("Q4_K", 100, 32, 1), "n_in is 100, expected a multiple of 256 for Q4_K"),
        (("Q4_K", 256, 0, 1), "n_out is 0, expected a value in"),
        (("Q4_K", 256, 32, -1), "n_rows is -1, expected a value in"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[str, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_seconds(*arguments)
