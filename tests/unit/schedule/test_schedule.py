"""Keep schedules: spelling, JSON, checks, and what the keep argument comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lazygguf.errors import ModelFileError
from lazygguf.schedule.keep import resolve_keep
from lazygguf.schedule.keep_schedule import KeepSchedule, PruningPoint

MODEL: dict[str, Any] = {"n_layer": 30, "n_head": 9, "metadata": {}}


@pytest.mark.parametrize("spelling", ["10:0.3,13:0.08", "0:1", "5:0.5", "1:0.25,2:0.25,28:0.001"])
def test_the_spelling_of_a_parsed_schedule_is_the_spelling_it_was_parsed_from(spelling: str) -> None:
    assert str(KeepSchedule.parse(spelling)) == spelling


EVERYTHING = KeepSchedule(
    (
        PruningPoint(5, 0.5, heads=((4, 1), (5, 0), 2), n_query="question", pool=21, query_max=True),
        PruningPoint(9, 0.4, n_layers=4, mass=0.8, keep_min=0.1),
    ),
    max_revive=1,
    decode_cached=True,
    dense_unasked=True,
)


def test_a_profile_says_all_of_a_schedule() -> None:
    assert KeepSchedule.from_json(EVERYTHING.to_json()) == EVERYTHING
    assert str(EVERYTHING) == "5:0.5,9:0.4"
    assert EVERYTHING.points[0].layer_heads == ((4, 1), (5, 0), (5, 2))
    EVERYTHING.validate(n_layer=11, n_head=3)
    with pytest.raises(ValueError, match="head is 2, expected at most 1"):
        EVERYTHING.validate(n_layer=11, n_head=2)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"n_layers": 0}, "n_layers is 0, expected an integer in [1, 6]"),
        ({"n_layers": 7}, "n_layers is 7"),
        ({"mass": 0}, "mass is 0, expected a value in (0, 1]"),
        ({"mass": True}, "mass is True"),
        ({"keep_min": 0.6}, "keep_min is 0.6, expected a value in [0, 0.5]"),
        ({"query_max": 1}, "query_max is 1, expected true or false"),
        ({"heads": [(6, 0)]}, "heads is [(6, 0)], expected different integers >= 0, or pairs"),
        ({"heads": [(1, 2, 3)]}, "heads is [(1, 2, 3)]"),
        ({"heads": [(1, 2), [1, 2]]}, "heads is [(1, 2), [1, 2]]"),
    ],
    ids=str,
)
def test_a_point_that_cannot_score_so_is_refused(point: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        PruningPoint(5, 0.5, **point)
    assert message in str(caught.value)


@pytest.mark.parametrize("after", [{"heads": ((3, 0),)}, {"n_layers": 4}], ids=str)
def test_a_point_scores_with_layers_after_the_point_before(after: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="layer 3 scores after 6, expected layers after the point before, 3"):
        KeepSchedule((PruningPoint(3, 0.5), PruningPoint(6, 0.4, **after)))


def test_switches_of_a_schedule_are_true_or_false() -> None:
    for name in ("decode_cached", "dense_unasked"):
        one: dict[str, Any] = {name: 1}
        with pytest.raises(ValueError, match=f"{name} is 1, expected true or false"):
            KeepSchedule((PruningPoint(3, 0.5),), **one)


def test_settings_of_points_hold_for_every_point() -> None:
    schedule = KeepSchedule.parse("1:0.5,2:0.4", n_query=8, pool=7, heads=[3, 1], max_revive=-1)
    assert all((p.n_query, p.pool, p.heads) == (8, 7, (3, 1)) for p in schedule.points)
    assert schedule.max_revive == -1


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("10:1.4", 'keep schedule "10:1.4": keep is 1.4, expected a value in (0, 1]'),
        ("10:0", "keep is 0, expected a value in (0, 1]"),
        ("10:-0.5", "keep is -0.5"),
        ("10:nan", "keep is nan"),
        ("10:inf", "keep is inf"),
        ("-2:0.5", "il is -2, expected an integer >= 0, or -1 (before layer 0)"),
        ("-7:0.5", "il is -7"),
        ("-1:0.5,3:0.6", "keep is 0.6 after 0.5"),
        ("5:0.5,5:0.4", "il is 5 after 5, expected ascending layers"),
        ("6:0.5,5:0.4", "il is 5 after 6"),
        ("5:0.3,6:0.4", "keep is 0.4 after 0.3, expected shares that never rise"),
        ("", 'cannot read ""'),
        ("10", 'cannot read "10"'),
        ("10:0.3,", 'cannot read ""'),
        ("1.5:0.3", 'cannot read "1.5:0.3"'),
        ("10=0.3", 'cannot read "10=0.3"'),
        ("99999999999:0.5", "il is 99999999999"),
    ],
)
def test_a_wrong_spelling_is_refused_with_the_value_and_what_was_expected(spelling: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        KeepSchedule.parse(spelling)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_query": 0},
        {"n_query": 129},
        {"n_query": "questions"},
        {"n_query": True},
        {"pool": 2},
        {"pool": 0},
        {"pool": 257},
        {"heads": []},
        {"heads": [1, 1]},
        {"heads": [-1]},
        {"heads": "12"},
        {"n_sink": -1},
        {"min_prompt": -1},
        {"max_revive": -2},
        {"max_revive": 1.5},
        {"revive_margin": -0.1},
        {"revive_margin": float("nan")},
        {"revive_margin": "2"},
        {"mean_revive": -1},
        {"mean_revive": float("inf")},
        {"mean_revive": "2"},
        {"mean_revive": 2, "max_revive": -1},
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is "):
        KeepSchedule.parse("5:0.5", **settings)


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="'max_revived', did you mean 'max_revive'"):
        KeepSchedule.parse("5:0.5", max_revived=3)


def test_a_schedule_without_points_or_with_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="0 pruning points"):
        KeepSchedule(())
    with pytest.raises(ValueError, match="64 pruning points"):
        KeepSchedule(tuple(PruningPoint(il, 0.5) for il in range(64)))


def test_a_schedule_survives_json() -> None:
    schedule = KeepSchedule(
        (PruningPoint(3, 0.5, heads=(2, 0), n_query="question", pool=7), PruningPoint(5, 0.1)),
        n_sink=1,
        min_prompt=0,
        max_revive=-1,
    )
    assert KeepSchedule.from_json(schedule.to_json()) == schedule


def test_a_profile_may_carry_its_measurements() -> None:
    profile = {**KeepSchedule.parse("3:0.5").to_dict(), "model": "x", "measurements": {"kl": 0.1}}
    assert KeepSchedule.from_dict(profile) == KeepSchedule.parse("3:0.5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "keep profile is not JSON"),
        ("[]", "keep profile is list, expected a JSON object"),
        ("{}", "keep profile has no list of points"),
        ('{"points": [{"il": 1, "kep": 0.5}]}', "'kep', did you mean 'keep'"),
        ('{"points": [{"il": 1}]}', "keep profile point has no keep"),
        ('{"points": [3]}', "keep profile point is 3"),
        ('{"point": []}', "'point', did you mean 'points'"),
        ('{"points": [{"il": 1, "keep": "0.5"}]}', "keep is '0.5'"),
        ('{"points": [{"il": "1", "keep": 0.5}]}', "il is '1'"),
        ('{"points": [{"il": 1, "keep": NaN}]}', "keep is nan"),
        ("[" * 100_000, "keep profile is not JSON"),
    ],
)
def test_a_wrong_profile_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        KeepSchedule.from_json(text)
    assert message in str(caught.value)


def test_the_papers_rule_asks_with_the_last_token_and_revives_without_limit() -> None:
    schedule = KeepSchedule.paper("9:0.5,18:0.25")
    assert (schedule.n_sink, schedule.min_prompt, schedule.max_revive) == (0, 0, -1)
    assert all((p.heads, p.n_query, p.pool) == (None, 1, 1) for p in schedule.points)


@pytest.mark.parametrize("n_layer", range(1, 130))
def test_the_default_schedule_prunes_nothing_before_60_percent_of_the_layers(n_layer: int) -> None:
    schedule = KeepSchedule.auto(n_layer)
    if schedule is None:
        assert n_layer < 3
        return
    schedule.validate(n_layer, n_head=1)
    assert (schedule.points[0].il + 1) * 10 >= n_layer * 6


def test_a_schedule_is_checked_against_the_model() -> None:
    with pytest.raises(ValueError, match=r"il is 29, expected at most 28 \(the model has 30 layers"):
        KeepSchedule.parse("29:0.5").validate(30, 9)
    with pytest.raises(ValueError, match="head is 9, expected at most 8"):
        KeepSchedule.parse("2:0.5", heads=[9]).validate(30, 9)


def test_off_is_dense_and_a_spelling_is_parsed() -> None:
    assert resolve_keep("off", **MODEL) is None
    assert resolve_keep("10:0.3", **MODEL) == KeepSchedule.parse("10:0.3")
    assert resolve_keep(KeepSchedule.parse("10:0.3"), **MODEL) == KeepSchedule.parse("10:0.3")


def test_auto_takes_the_models_profile_before_the_default() -> None:
    profile = KeepSchedule.parse("12:0.2", pool=3)
    metadata = {"lazygguf.profile": profile.to_json()}
    assert resolve_keep("auto", **MODEL) == KeepSchedule.auto(30)
    assert resolve_keep("auto", **{**MODEL, "metadata": metadata}) == profile
    shipped = KeepSchedule.parse("14:0.5").to_dict()
    assert resolve_keep("auto", **MODEL, shipped=shipped) == KeepSchedule.parse("14:0.5")
    assert resolve_keep("auto", **{**MODEL, "metadata": metadata}, shipped=shipped) == profile  # the file's own first


@pytest.mark.parametrize("profile", ["{", '{"points": [{"il": 99, "keep": 0.5}]}', 7])
def test_a_wrong_profile_in_the_model_file_is_the_files_fault(profile: Any) -> None:
    with pytest.raises(ModelFileError, match=r"lazygguf\.profile.*keep=\"off\" ignores it"):
        resolve_keep("auto", **{**MODEL, "metadata": {"lazygguf.profile": profile}})


def test_a_profile_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(KeepSchedule.parse("12:0.2").to_dict()), encoding="utf-8")
    assert resolve_keep(str(path), **MODEL) == KeepSchedule.parse("12:0.2")
    with pytest.raises(FileNotFoundError):
        resolve_keep(str(tmp_path / "none.json"), **MODEL)


def test_max_revive_overrides_the_schedules_own() -> None:
    schedule = resolve_keep("10:0.3", **MODEL, max_revive=-1)
    assert schedule is not None and schedule.max_revive == -1
    with pytest.raises(ValueError, match="max_revive is -2"):
        resolve_keep("off", **MODEL, max_revive=-2)


def test_a_keep_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"keep is 0\.5"):
        resolve_keep(0.5, **MODEL)  # type: ignore[arg-type]
