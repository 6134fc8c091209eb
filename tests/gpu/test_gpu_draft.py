"""A draft and the model it reads for, on the GPU or the CPU each: the same is read, and the answer is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import pytest
from gpu.compare import NMSE, gpu_config
from reference import nmse
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel
from lazygguf.schedule.scoring import ScoringProfile

pytestmark = pytest.mark.gpu

Write = Callable[[TinyConfig], tuple[Path, dict[str, np.ndarray]]]

TARGET = gpu_config(tokenizer="bpe", n_layer=4, n_ctx_train=2048)
DRAFT = gpu_config(tokenizer="spm", n_embd=64, n_head=1, n_head_kv=1, n_ff=64, n_layer=4, n_ctx_train=1024, seed=5)
KEEP = KeepSchedule.parse("-1:0.3,1:0.2", n_query=4, min_prompt=0, max_revive=1)
TEXT = "the cat sat on the mat and the dog ran to the door of the house. " * 6


def read_two_questions(model: LazyModel) -> list[tuple[np.ndarray, set[int], int]]:
    """For a prompt, a step and a second question: logits, what the model has read, and what the draft has."""
    context = model._context
    assert context is not None
    ids = model.tokenize(f"{TEXT}\n\nwhere did the dog run?".encode())
    more = model.tokenize(b"\nwho sat on the mat?", add_bos=False)
    found = []
    for given in (ids, [7], more):
        model.eval(given)
        session: Any = context._session
        logits = context.logits()
        assert logits is not None
        found.append((logits, set(session.cached(0).tolist()), model.stats.n_draft))
    return found


@pytest.mark.parametrize(
    ("n_gpu_layers", "n_gpu_layers_draft"), [("all", 0), ("all", None), (2, 0), ("all", 2)], ids=str
)
def test_a_draft_finds_the_same_wherever_it_and_the_model_lie(
    gpu: str,
    tiny_model: Write,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    n_gpu_layers: Union[int, str],
    n_gpu_layers_draft: Optional[int],
) -> None:
    # the scores of random weights are noise, and one that differs by rounding can make another run a fragment
    monkeypatch.setattr("lazygguf.draft.rules.MIN_RUN", 1)
    target, draft = tiny_model(TARGET)[0], tiny_model(DRAFT)[0]
    options: dict[str, Any] = {
        "keep": KEEP,
        "scoring": ScoringProfile((1, 2), over_query="max", pool=(2, 1)),
        "n_threads": 1,
        "weights": "as-is",
        "second_look": 0,
    }
    with LazyModel(target, draft=draft, **options) as model:
        n_tokens = len(model.tokenize(TEXT.encode()))
        expected = read_two_questions(model)
    layers = {"n_gpu_layers": n_gpu_layers, "n_gpu_layers_draft": n_gpu_layers_draft}
    placed: dict[str, Any] = {**layers, "device": gpu, "verbose": True}
    with LazyModel(target, draft=draft, **options, **placed) as model:
        found = read_two_questions(model)
        draft_is_on_gpu = gpu in model._parts.draft.weights.desc
    assert draft_is_on_gpu == (n_gpu_layers_draft != 0)
    assert f"on {gpu}" in capfd.readouterr().err
    for (logits, read, n_draft), (wanted_logits, wanted_read, wanted_n_draft) in zip(found, expected):
        assert (read, n_draft) == (wanted_read, wanted_n_draft)
        assert nmse(logits, wanted_logits) <= NMSE
    assert expected[0][2] > 0 and len(expected[0][1]) < 0.5 * n_tokens
