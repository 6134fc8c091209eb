"""``LazyModel.eval`` with scores of the caller's own."""

from __future__ import annotations

import numpy as np
import pytest

from lazygguf import KeepSchedule, LazyModel, PruningPoint
from lazygguf.draft.rules import n_wanted


def test_scores_of_the_callers_own_decide_what_is_read(path: str) -> None:
    with LazyModel(path, keep=KeepSchedule.parse("-1:0.5", min_prompt=0)) as model:
        model.eval(list(range(3, 83)), scores=np.arange(80.0))
        assert model.stats.kept == [40]
        assert model.stats.token_share == 0.5
        model.eval(list(range(3, 23)), scores=-np.arange(100.0))  # now the beginning: it is read, the end is there
        assert model.stats.n_reused == 80 and model.stats.token_share > 1.0
        with pytest.raises(ValueError, match="5 scores, expected one for each of the 101 tokens"):
            model.eval([3], scores=[1.0] * 5)
        with pytest.raises(ValueError, match="score at position 7 is -inf"):
            model.eval([3], scores=[0.0] * 7 + [-np.inf] + [0.0] * 93)
        with pytest.raises(ValueError, match=r"scores have the shape \(1, 101\)"):
            model.eval([3], scores=np.zeros((1, 101)))
        assert model.n_tokens == 100
        with pytest.raises(ValueError, match="il -1 prunes by scores from outside"):
            model.create_completion("hello")


@pytest.mark.parametrize("mass", [0.3, 0.8, 1.0])
def test_an_easy_prompt_reads_less_than_it_may_before_layer_0(path: str, mass: float) -> None:
    point = PruningPoint(-1, 0.8, mass=mass, keep_min=0.1)
    scores = np.random.default_rng(1).random(80).astype(np.float32) ** 4
    scores[-24:] = np.inf  # those that ask
    with LazyModel(path, keep=KeepSchedule((point,), n_sink=0, min_prompt=0)) as model:
        model.eval(list(range(3, 83)), scores=scores)
        assert model.stats.kept == [n_wanted(scores, point)]
        assert (model.stats.kept == [64]) == (mass == 1.0)
        if mass < 1.0:
            with pytest.raises(ValueError, match="score at position 2 is -1, expected none below 0"):
                model.eval([3], scores=[0.0, 0.0, -1.0] + [0.0] * 78)


def test_scores_without_a_point_that_uses_them_are_refused(path: str) -> None:
    with LazyModel(path, keep="off") as model, pytest.raises(ValueError, match="no pruning point before layer 0"):
        model.eval([3, 4], scores=[0.0, 1.0])
