"""Runs that take turns, on fake engines and a fake clock, and the figures that come of them, worked out by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from lazygguf import KeepSchedule

pytest.importorskip("lazygguf.tools.bench.command", reason="lazygguf is not installed with its tools")

from lazygguf.tools.bench import measuring
from lazygguf.tools.bench.contenders import LAZYGGUF, LLAMA_CPP, Contender
from lazygguf.tools.bench.engines import Counts, Settings
from lazygguf.tools.bench.records import Conditions, Machine, ModelFacts, to_records
from lazygguf.tools.bench.tables import memory_table, ratio_table, speed_table
from lazygguf.tools.bench.text import Script, script
from lazygguf.tools.bench.timing import (
    VARIES,
    Row,
    Sample,
    interleave,
    logits_hash,
    make_rows,
    measure,
    pair_ratio,
    spread,
)
from lazygguf.tools.schedule_options import ModelShape

THEIRS = Contender(LLAMA_CPP)
DENSE = Contender(LAZYGGUF)
LAZY = Contender(LAZYGGUF, "3:0.5", KeepSchedule.parse("3:0.5"))


class Clock:
    """Time passes only when an engine works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeEngine:
    """Takes a time per token for a prompt, another for a single token, and one to hand out logits."""

    def __init__(self, clock: Clock, prompt_s: float, decode_s: float, logits_s: float = 0.25) -> None:
        self.clock, self.prompt_s, self.decode_s, self.logits_s = clock, prompt_s, decode_s, logits_s
        self.log: list[Any] = []
        self.n_asked = 0

    def read(self, ids: Sequence[int], n_asked: int = 0) -> None:
        self.log.append(list(ids))
        self.n_asked = n_asked or self.n_asked
        self.clock.now += self.decode_s if len(ids) == 1 else self.prompt_s * len(ids)

    def logits(self) -> np.ndarray:
        self.clock.now += self.logits_s
        return np.array([0.0, 1.0, 0.5], np.float32)

    def counts(self) -> Counts:
        n_read = sum(len(ids) for ids in self.log if ids != "reset")
        return Counts(0.4 if len(self.log[-1]) > 1 else 0.9, 10 * n_read, n_read)

    def reset(self) -> None:
        self.log.append("reset")
        self.clock.now += 1000.0  # must not be in any time

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_run_reads_the_prompt_at_once_and_the_rest_one_by_one_from_an_empty_context() -> None:
    clock = Clock()
    engine = FakeEngine(clock, prompt_s=0.5, decode_s=2.0)
    sample = measure(engine, Script([1, 2, 3, 4, 5, 6], 4, 2), clock)
    assert engine.log == ["reset", [1, 2, 3, 4], [5], [6], "reset"]
    assert engine.n_asked == 2
    assert (sample.prefill_s, sample.ttft_s, sample.decode_s, sample.total_s) == (2.0, 2.25, 4.0, 6.25)
    assert sample.token_share == 0.4  # of the prompt, not of the last token
    assert (sample.kv_bytes, sample.aux_bytes) == (60, 6)  # at the end


def test_engines_take_turns_after_a_warm_up_that_does_not_count() -> None:
    clock = Clock()
    engines = {"a": FakeEngine(clock, 1.0, 1.0), "b": FakeEngine(clock, 2.0, 1.0), "c": FakeEngine(clock, 3.0, 1.0)}
    turns: list[str] = []
    samples = interleave(engines, Script([1, 2, 3], 2), repeats=2, on_turn=turns.append, clock=clock)
    assert turns == ["a", "b", "c"] * 3
    assert {name: [sample.prefill_s for sample in runs] for name, runs in samples.items()} == {
        "a": [2.0, 2.0],
        "b": [4.0, 4.0],
        "c": [6.0, 6.0],
    }
    assert all(engine.log == ["reset", [1, 2], [3], "reset"] * 3 for engine in engines.values())


def test_each_length_reads_its_own_prompt_and_as_many_tokens_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = {contender: FakeEngine(Clock(), 1.0, 1.0) for contender in (THEIRS, DENSE)}
    opened: list[Settings] = []

    @contextlib.contextmanager
    def fakes(path: str, rows: Any, settings: Settings) -> Iterator[Any]:
        opened.append(settings)
        yield engines

    monkeypatch.setattr(measuring, "open_engines", fakes)
    plan = measuring.Plan(
        path="m.gguf",
        contenders=list(engines),
        text=[1, 2, 3, 4, 5],
        lengths=[2, 3],
        n_gen=2,
        repeats=1,
        settings=Settings(n_threads=1),
        with_memory=False,
    )
    turns: list[str] = []
    rows = list(measuring.run_plan(plan, turns.append))
    assert [(row.n_prompt, row.n_gen) for finished in rows for row in finished] == [(2, 2)] * 2 + [(3, 2)] * 2
    two, three = ["reset", [1, 2], [3], [4], "reset"], ["reset", [1, 2, 3], [4], [5], "reset"]
    assert all(engine.log == two * 2 + three * 2 for engine in engines.values())
    assert opened[0].n_ctx == 5 and len(turns) == plan.n_turns == 8


def test_a_prompt_ends_with_the_question_and_goes_on_where_the_text_was_left() -> None:
    text, question = list(range(100, 130)), [1, 2, 3]
    assert script(text, question, 10, 2) == ([*range(100, 107), 1, 2, 3, 107, 108], 10, 3)
    assert script(text, question, 9, 2) == ([*range(100, 111)], 9, 0)  # too short to ask anything of
    assert script(text, [], 9, 2) == ([*range(100, 111)], 9, 0)


def test_a_ratio_is_the_median_over_pairs_and_not_the_ratio_of_medians() -> None:
    ours, theirs = [1.0, 2.0, 10.0], [3.0, 2.0, 20.0]
    assert pair_ratio(ours, theirs) == 2.0  # of 3, 1, 2; the ratio of medians would be 1.5
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


def test_the_hash_is_of_the_bits() -> None:
    logits = np.array([1.0, 2.0], np.float32)
    assert logits_hash(logits) == logits_hash(logits.copy()) and len(logits_hash(logits)) == 12
    assert logits_hash(np.nextafter(logits, np.float32(9))) != logits_hash(logits)


def sample(prefill: float, ttft: float, decode: float, share: float = 1.0, hash: str = "ab") -> Sample:
    return Sample(prefill, ttft, decode, share, 1000, 10, hash)


def rows_by_hand() -> list[Row]:
    samples = {
        THEIRS: [sample(4.0, 4.5, 2.0), sample(5.0, 5.5, 1.0), sample(4.0, 4.5, 2.0)],
        DENSE: [sample(4.0, 4.0, 2.0), sample(4.0, 5.0, 2.0), sample(6.0, 6.0, 2.0)],
        LAZY: [sample(2.0, 2.5, 4.0, 0.4, "cd"), sample(1.0, 1.0, 2.0, 0.4, "cd"), sample(4.0, 4.0, 8.0, 0.4, "cd")],
    }
    return make_rows(samples, n_prompt=100, n_gen=8, peaks={LAZY: 3 * 2**20}, test_time="2026-01-02T03:04:05Z")


def test_the_figures_of_a_row_worked_out_by_hand() -> None:
    theirs, dense, lazy = rows_by_hand()
    assert lazy.ratio_dense("prefill") == 2.0  # of 2, 4, 1.5
    assert lazy.ratio_dense("decode") == 0.5  # of 0.5, 1, 0.25
    assert lazy.ratio_dense("ttft") == 1.6  # of 1.6, 5, 1.5
    assert lazy.ratio_dense("total") == pytest.approx(6.0 / 6.5)  # of 6/6.5, 7/3, 8/12
    assert lazy.ratio_llama_cpp("prefill") == 2.0  # of 2, 5, 1
    assert dense.ratio_llama_cpp("decode") == 1.0  # of 1, 0.5, 1
    assert theirs.ratio_dense("prefill") == 1.0  # of 1, 4/5, 1.5
    assert lazy.ideal_speedup == 2.5 and lazy.reached == 2.0 / 2.5
    assert dense.ideal_speedup == 1.0 and dense.reached == 1.0 and theirs.reached is None
    assert lazy.rate("prefill") == (50.0, 25.0, 100.0)
    assert lazy.rate("decode") == (2.0, 1.0, 4.0)
    assert lazy.spread("ttft") == (2.5, 1.0, 4.0)
    assert (lazy.peak_bytes, dense.peak_bytes) == (3 * 2**20, None)


def test_without_llama_cpp_there_is_nothing_to_compare_with() -> None:
    (row,) = make_rows({DENSE: [sample(1.0, 1.0, 1.0)]}, 10, 1, {}, "")
    assert row.ratio_llama_cpp("total") is None and row.ratio_dense("total") == 1.0


def test_runs_that_do_not_agree_in_their_logits_show_it() -> None:
    (row,) = make_rows({DENSE: [sample(1.0, 1.0, 1.0, hash="a"), sample(1.0, 1.0, 1.0, hash="b")]}, 10, 1, {}, "")
    assert row.logits_hash == VARIES


CONDITIONS = Conditions(
    model=ModelFacts("m.gguf", "llama 1.00 B Q4_K", 4000, 1000, 320, 512, ModelShape(6, 4, {})),
    machine=Machine("a CPU", "", "CPU", "abc123", "avx2"),
    settings=Settings(n_threads=2, n_ctx=108, n_ubatch=64),
    text="t.txt",
)
LLAMA_BENCH = (
    "build_commit build_number cpu_info gpu_info backends model_filename model_type model_size model_n_params n_batch "
    "n_ubatch n_threads type_k type_v n_gpu_layers flash_attn use_mmap n_prompt n_gen n_depth test_time avg_ns "
    "stddev_ns avg_ts stddev_ts samples_ns samples_ts"
)
OURS = (
    "ttft_ms tokens_computed_pct keep kv_bytes aux_bytes peak_bytes ideal_speedup reached ratio_dense ratio_llama_cpp "
    "ratio_ik isa engine_isa logits_hash"
)


def test_records_have_llama_benchs_fields_and_ours() -> None:
    records = to_records(rows_by_hand(), CONDITIONS)
    assert [record["test"] for record in records[:3]] == ["pp100", "tg8 @ d100", "pp100+tg8"]
    assert len(records) == 9 and len({tuple(record) for record in records}) == 1
    assert set(LLAMA_BENCH.split()) | set(OURS.split()) <= records[0].keys()


def test_records_hold_the_figures_of_their_test() -> None:
    prompt, decode, both = to_records(rows_by_hand(), CONDITIONS)[6:]
    assert [(r["n_prompt"], r["n_gen"], r["n_depth"]) for r in (prompt, decode, both)] == [
        (100, 0, 0),
        (0, 8, 100),
        (100, 8, 0),
    ]
    assert prompt["samples_ns"] == [2_000_000_000, 1_000_000_000, 4_000_000_000]
    assert prompt["avg_ns"] == 2_333_333_333 and prompt["stddev_ns"] == pytest.approx(1_527_525_232, abs=1)
    assert prompt["samples_ts"] == [50.0, 100.0, 25.0] and prompt["avg_ts"] == pytest.approx(175 / 3)
    assert decode["samples_ts"] == [2.0, 4.0, 1.0] and decode["stddev_ts"] == pytest.approx(1.527525, abs=1e-6)
    assert both["samples_ns"] == [6_500_000_000, 3_000_000_000, 12_000_000_000]
    assert (prompt["ratio_dense"], decode["ratio_dense"]) == (2.0, 0.5)
    assert (prompt["keep"], prompt["tokens_computed_pct"], prompt["ttft_ms"]) == ("3:0.5", 40.0, 2500.0)
    assert prompt["schedule"]["points"][0]["il"] == 3
    assert (prompt["model_size"], prompt["n_threads"], prompt["build_number"]) == (4000, 2, None)
    assert prompt["test_time"] == "2026-01-02T03:04:05Z"


def test_one_run_has_no_deviation() -> None:
    (row,) = make_rows({DENSE: [sample(1.0, 1.0, 1.0)]}, 10, 1, {}, "")
    record = to_records([row], CONDITIONS)[0]
    assert (record["stddev_ns"], record["stddev_ts"]) == (0, 0.0)


def cells(table: Any, row: int) -> list[str]:
    return [list(column.cells)[row] for column in table.columns]


def test_the_tables_show_medians_with_least_and_most() -> None:
    rows = rows_by_hand()
    assert cells(speed_table(rows), 2) == [
        "100",
        "3:0.5",
        "2.500",
        "2.000 (1.000-4.000)",
        "50.0 (25.0-100)",
        "2.0 (1.0-4.0)",
        "6.500",
    ]
    assert cells(ratio_table(rows), 2) == [
        "100",
        "3:0.5",
        "0.400",
        "2.50x",
        "80%",
        "1.60x  0.50x  0.92x",
        "1.80x  0.50x  1.00x",
    ]
    assert cells(ratio_table(rows), 0)[:5] == ["100", "llama.cpp", "1.000", "1.00x", "-"]
    assert cells(memory_table(rows), 2) == ["100", "3:0.5", "0.0", "0.0", "3.0", "cd"]
