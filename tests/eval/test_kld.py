"""KL divergence of continuation tokens: by hand, and on a tiny model against a direct computation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools.eval.engine import Engine
from lazygguf.tools.eval.kld import N_CONTINUATION, Divergence, KldSource, compare, summarize
from lazygguf.tools.eval.methods import DENSE, Method
from lazygguf.tools.eval.prompts import Haystack
from lazygguf.tools.eval.runner import AnswerFile, Plan, Run

from lazygguf import KeepSchedule, LazyModel
from lazygguf.model.options import ModelOptions

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
CONFIG = TinyConfig(n_ctx_train=2048)
SCHEDULE = KeepSchedule.parse("1:0.2,3:0.1", min_prompt=0)


@pytest.fixture(scope="module")
def engine(tiny_model: TinyModel) -> Iterator[Engine]:
    with Engine(str(tiny_model(CONFIG)[0]), ModelOptions(n_threads=1)) as opened:
        yield opened


def test_divergence_of_two_small_distributions_is_what_the_definition_gives() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    logits = [[np.log(p).astype(np.float32) + 7], [np.log(q).astype(np.float32) - 3]]
    got = compare(logits[0], logits[1], [1])
    assert got.kld == [pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2), abs=1e-6)]
    assert got.nll == [pytest.approx(math.log(2), abs=1e-6)]
    assert got.nll_base == [pytest.approx(math.log(4), abs=1e-6)]
    assert got.same_top == [False]


def test_a_distribution_does_not_diverge_from_itself() -> None:
    logits = [np.random.default_rng(0).normal(0, 30, 1000).astype(np.float32)]
    got = compare(logits, logits, [3])
    assert got.kld == [0.0] and got.same_top == [True] and got.nll == got.nll_base


def test_the_summary_is_over_all_tokens() -> None:
    parts = [
        Divergence([0.0, 1.0], [math.log(2), math.log(8)], [math.log(2), math.log(2)], [True, False]),
        Divergence([2.0, 5.0], [math.log(2), math.log(8)], [math.log(2), math.log(2)], [True, True]),
    ]
    got = summarize(parts)
    assert got["n_tokens"] == 4
    assert (got["kld_mean"], got["kld_median"], got["kld_max"]) == (2.0, 1.5, 5.0)
    assert got["kld_99"] == pytest.approx(2.0 + 0.97 * 3.0)  # rank 0.99 * 3 = 2.97
    assert got["same_top"] == 0.75
    assert got["ppl"] == pytest.approx(4.0)  # exp of the mean of ln 2 and ln 8
    assert got["ppl_base"] == pytest.approx(2.0) and got["ppl_ratio"] == pytest.approx(2.0)


def test_the_run_gives_what_a_direct_computation_gives(engine: Engine, tiny_model: TinyModel) -> None:
    source = KldSource(1, 0, 300, Haystack.read(None), engine.prompter)
    methods = [Method(DENSE, DENSE, None), Method("x", "keep", SCHEDULE)]
    work = Run(Plan([source], [engine.reader(m) for m in methods], engine.settings, 0), AnswerFile(None, "m"))
    work.all(lambda done, total: None)
    question = source.question(0)
    assert question.continuation is not None and len(question.continuation) == N_CONTINUATION
    probs = []
    for keep in ("off", SCHEDULE):
        with LazyModel(str(tiny_model(CONFIG)[0]), keep=keep, n_threads=1) as model:
            rows = []
            model.eval(question.prompt.ids)
            for token in question.continuation:
                exps = np.exp(model.logits.astype(np.float64))  # type: ignore[union-attr]
                rows.append(exps / exps.sum())
                model.eval([token])
            probs.append(np.array(rows))
    p, q = probs
    dense, lazy = (record["divergence"] for record in work.records)
    assert np.allclose(lazy["kld"], (p * np.log(p / q)).sum(axis=1), atol=1e-6)
    assert np.allclose(lazy["nll"], [-math.log(row[t]) for row, t in zip(q, question.continuation)], atol=1e-6)
    assert lazy["same_top"] == [bool(a.argmax() == b.argmax()) for a, b in zip(p, q)]
    assert max(lazy["kld"]) > 1e-4  # the schedule does drop something
    assert dense["kld"] == [0.0] * N_CONTINUATION and lazy["nll_base"] == dense["nll"]


def test_a_prompt_is_a_piece_of_the_text_and_goes_on_in_it(engine: Engine) -> None:
    haystack = Haystack.read(None)
    source = KldSource(2, 3, 300, haystack, engine.prompter)
    for index in range(2):
        question = source.question(index)
        assert len(question.prompt.ids) == 300
        assert question.prompt.ids[0] == engine.prompter.tokenizer.token_bos()
        assert question.continuation is not None
        text = engine.prompter.tokenizer.detokenize([*question.prompt.ids[1:], *question.continuation])
        assert text in b" " + haystack.text.encode()
    assert source.question(0).prompt.digest != source.question(1).prompt.digest


def test_a_text_shorter_than_the_prompt_is_refused_with_both_numbers(engine: Engine) -> None:
    haystack = Haystack("word " * 200, "mine.txt")
    with pytest.raises(ValueError, match=r"--length 5000, task kld: mine\.txt has \d+ tokens, 5064 are needed"):
        KldSource(1, 0, 5000, haystack, engine.prompter)
