"""What recordings say: recall, the choice of heads, and the schedules that are proposed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("lazygguf.tools.calibrate", reason="lazygguf is not installed with its tools")

from lazygguf.tools.calibrate.recall import (
    Scorer,
    best_scorer,
    kept_share,
    layer_recalls,
    needed_by_fact,
    needed_share,
    needed_shares,
    pooled,
    recall_map,
)
from lazygguf.tools.calibrate.recording import Recording
from lazygguf.tools.calibrate.search import (
    LATER_BEGIN,
    LATER_END,
    MARGINS,
    NEAR,
    SHARES,
    Facts,
    drafted_proposals,
    propose,
    shares_near,
)

N_LAYER, N_HEAD, N_TOKENS = 12, 3, 100
SEEING = (3, 1)  # the only head that looks at the evidence


def recording(seed: int, seeing: Sequence[tuple[int, int]] = (SEEING,)) -> Recording:
    rng = np.random.default_rng(seed)
    attention = rng.random((N_LAYER, N_HEAD, N_TOKENS)).astype(np.float16) * np.float16(0.01)
    evidence = int(rng.integers(10, 80))
    for head in seeing:
        attention[head][evidence : evidence + 3] = 0.02
    attention[:, 0] *= np.float16(40)  # a loud head that hides it from the mean
    forms = {"newest": attention * 0, "mean": attention, "max": attention}
    return Recording(f"r{seed}", "a" if seed % 2 else "b", (0, 1, 98, 99), ((evidence, evidence + 2),), forms)


RECORDINGS = [recording(seed) for seed in range(12)]


def test_the_needed_share_is_the_least_keep_at_which_all_evidence_goes_on() -> None:
    r = replace(RECORDINGS[0], evidence=((10,), (20, 21)))
    scores = np.zeros(N_TOKENS)
    scores[[10, 20, 21, 50]] = [5.0, 4.0, 3.0, 9.0]
    assert needed_share(scores, r) == (4 + 4) / N_TOKENS  # 50 is better than 21, and four are protected
    scores[21] = 0.0  # as bad as all the others
    assert needed_share(scores, r) == 1.0
    assert needed_share(np.stack([scores, scores + 1]), r).shape == (2,)


def test_each_fact_needs_its_own_share_and_all_of_them_the_largest() -> None:
    r = replace(RECORDINGS[0], evidence=((10,), (20, 21)))
    scores = np.zeros(N_TOKENS)
    scores[[10, 20, 21, 50]] = [5.0, 4.0, 3.0, 9.0]
    assert needed_by_fact(scores, r).tolist() == [(2 + 4) / N_TOKENS, (4 + 4) / N_TOKENS]
    assert needed_share(scores, r) == needed_by_fact(scores, r).max()


def test_kinds_weigh_alike_and_so_do_the_facts_of_a_recording() -> None:
    three = replace(RECORDINGS[0], kind="b", evidence=((10,), (20,), (30,)))
    facts = Facts.of([replace(RECORDINGS[1], kind="a"), replace(RECORDINGS[2], kind="a"), three])
    assert facts.owner.tolist() == [0, 1, 2, 2, 2]
    assert facts.weight == pytest.approx([1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6])
    assert facts.recall(np.array([[True, True, True, False, False]])) == pytest.approx(2 / 3)


def test_protected_evidence_needs_nothing() -> None:
    assert needed_share(np.zeros(N_TOKENS), replace(RECORDINGS[0], evidence=((98,),))) == 4 / N_TOKENS


def test_pooling_averages_over_the_neighbours_that_are_there() -> None:
    scores = np.array([3.0, 0.0, 0.0, 6.0])
    assert pooled(scores, 3).tolist() == [1.5, 1.0, 2.0, 3.0]
    assert pooled(scores, 1) is scores


def test_the_kept_share_holds_the_mass_with_the_fewest() -> None:
    scores = np.zeros(N_TOKENS)
    scores[[10, 20, 30]] = [5.0, 3.0, 2.0]
    scores[99] = 100.0  # protected: no part of the mass
    assert kept_share(scores, RECORDINGS[0], 0.4) == (1 + 4) / N_TOKENS
    assert kept_share(scores, RECORDINGS[0], 0.7) == (2 + 4) / N_TOKENS
    assert kept_share(scores, RECORDINGS[0], 0.9) == (3 + 4) / N_TOKENS


def test_the_head_that_sees_is_found_and_its_layers_wait_for_it() -> None:
    scorer = best_scorer(RECORDINGS, 4)
    assert scorer.heads is not None and SEEING in scorer.heads
    assert scorer.first_layer(4) <= 3
    assert needed_shares(scorer, 4, RECORDINGS).max() < 0.2
    blind = best_scorer(RECORDINGS, 2)
    assert needed_shares(blind, 2, RECORDINGS).mean() > 0.3


def test_heads_that_fit_by_chance_are_not_taken() -> None:
    rng = np.random.default_rng(5)

    def blind(seed: int) -> Recording:
        noise = rng.random((N_LAYER, N_HEAD, N_TOKENS)).astype(np.float16)
        return replace(recording(seed), attention={"newest": noise, "mean": noise, "max": noise})

    assert best_scorer([blind(seed) for seed in range(12)], 4).heads is None


def test_proposals_prune_where_the_model_sees_and_recall_more_where_more_may_be_read() -> None:
    layers = list(layer_recalls(RECORDINGS, N_LAYER))
    assert [layer.il for layer in layers] == list(range(1, N_LAYER - 1))
    proposals = propose(layers, RECORDINGS, N_LAYER)
    assert [p.share for p in proposals] == sorted(p.share for p in proposals)
    assert all(p.share <= max(SHARES) for p in proposals)
    best = max(proposals, key=lambda p: p.recall or 0.0)
    assert best.recall == 1.0
    assert best.schedule.points[0].il == 3  # no earlier layer sees
    assert best.share < 0.75
    for point in best.schedule.points:
        layer = next(layer for layer in layers if layer.il == point.il)
        assert (layer.needed * max(MARGINS) <= point.keep).all()
    for proposal in proposals:
        proposal.schedule.validate(N_LAYER, N_HEAD)
        for point in proposal.schedule.points:
            assert 0.0 < point.keep_min <= point.keep and point.mass < 1.0


def test_with_a_share_the_proposals_are_around_it() -> None:
    proposals = propose(list(layer_recalls(RECORDINGS, N_LAYER)), RECORDINGS, N_LAYER, shares_near(0.55))
    assert proposals and all(p.share <= 0.55 * max(NEAR) for p in proposals)
    assert max(p.share for p in proposals) > 0.5
    assert all(point.keep <= 0.2 for p in drafted_proposals(0.2) for point in p.schedule.points)


def test_each_share_has_other_proposals_that_begin_or_end_later() -> None:
    recordings = [recording(seed, (SEEING, (7, 1))) for seed in range(12)]
    proposals = propose(list(layer_recalls(recordings, N_LAYER)), recordings, N_LAYER, (0.5, 0.95))
    spans = {(p.schedule.points[0].il, p.schedule.points[-1].il) for p in proposals}
    begins, ends = zip(*spans)
    assert max(begins) >= min(begins) + LATER_BEGIN
    assert max(ends) >= min(ends) + LATER_END


def test_the_map_says_how_often_a_head_sees() -> None:
    seen = recall_map(RECORDINGS, "max", pool=1, keep=0.1)
    assert seen.shape == (N_LAYER, N_HEAD)
    assert seen[SEEING] == 1.0
    assert np.delete(seen.reshape(-1), SEEING[0] * N_HEAD + SEEING[1]).max() < 0.5


def test_a_scorer_and_its_pruning_point_say_the_same() -> None:
    point = Scorer("max", 21, heads=((2, 0), (3, 1))).point(4, 0.4, mass=0.8, keep_min=0.1)
    assert (point.layer_heads, point.pool, point.query_max, point.n_query) == (((2, 0), (3, 1)), 21, True, "question")
    assert (point.keep, point.mass, point.keep_min) == (0.4, 0.8, 0.1)
    paper = Scorer("newest").point(4, 0.4)
    assert (paper.heads, paper.pool, paper.query_max, paper.n_query, paper.mass) == (None, 1, False, 1, 1.0)
