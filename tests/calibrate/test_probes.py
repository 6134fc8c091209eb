"""The prompts of a calibration: what decides them, and that they know where their evidence stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import CHATML, TinyConfig

pytest.importorskip("lazygguf.tools.calibrate", reason="lazygguf is not installed with its tools")

from lazygguf.tools.calibrate.probes import KINDS, ProbeSource
from lazygguf.tools.calibrate.recording import asking_positions
from lazygguf.tools.eval.prompts import Haystack, Prompter

from lazygguf.text.tokenizer import Tokenizer

LENGTH = 4000  # tokens of a tokenizer that knows little more than bytes


@pytest.fixture(scope="module")
def probes(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> ProbeSource:
    tokenizer = Tokenizer(str(tiny_model(TinyConfig())[0]))
    return ProbeSource(Haystack.read(None), Prompter(tokenizer, {"tokenizer.chat_template": CHATML}), seed=3)


def text_at(probes: ProbeSource, ids: Sequence[int], positions: Sequence[int]) -> str:
    return probes.prompter.tokenizer.detokenize([ids[pos] for pos in positions]).decode()


@pytest.mark.parametrize("place", ["after", "before"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_evidence_of_a_probe_holds_what_answers(probes: ProbeSource, kind: str, place: str) -> None:
    probe = probes.probe(kind, place, 0, LENGTH)
    ids = probe.question.prompt.ids
    assert LENGTH - 120 <= len(ids) <= LENGTH
    shown = " ".join(text_at(probes, ids, fact) for fact in probe.evidence)
    for reference in probe.question.references:
        assert reference in shown
    assert probe.question.score(" ".join(probe.question.references)) == 1.0
    assert probe.question.score("nothing") == 0.0


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_question_asks_and_the_same_index_is_the_same_probe(probes: ProbeSource, kind: str) -> None:
    probe, again, other = (probes.probe(kind, "after", i, LENGTH).question.prompt for i in (1, 1, 2))
    assert probe == again != other
    asking = asking_positions(probe)
    assert asking[-1] == len(probe.ids) - 1
    assert text_at(probes, probe.ids, asking).rstrip("\n").count("?") >= 1
    assert set(asking) < set(range(LENGTH - 400, LENGTH))


def test_a_question_before_the_text_is_not_mistaken_for_its_end(probes: ProbeSource) -> None:
    assert probes.probe("single", "before", 0, LENGTH).question.prompt.query_span is None
