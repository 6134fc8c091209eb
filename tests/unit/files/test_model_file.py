"""A shipped profile is found by what the model is, and is one that can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from gguf import GGUFValueType
from tiny_gguf import Kv, TinyConfig, write_tiny_gguf

from lazygguf import KeepSchedule, LazyModel, ModelFileError
from lazygguf._ffi import NativeFile
from lazygguf.files import model_file
from lazygguf.files.model_file import FOLDER, fingerprint, shipped_profile, shipped_scoring
from lazygguf.schedule.keep_schedule import PROFILE_KEY
from lazygguf.schedule.scoring import ScoringProfile

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]


def fingerprint_of(path: Path) -> Any:
    with NativeFile(path) as file:
        return fingerprint(path, file)


def test_quantizations_of_a_model_share_a_fingerprint_and_models_do_not(tmp_path: Path) -> None:
    def written(name: str, **changes: Any) -> Path:
        write_tiny_gguf(tmp_path / name, TinyConfig.for_type(changes.pop("type", "F32"), **changes))
        return tmp_path / name

    plain, small, other = written("a"), written("b", type="Q8_0"), written("c", seed=9)
    assert fingerprint_of(plain) == fingerprint_of(small)
    assert len({fingerprint_of(plain), fingerprint_of(other), fingerprint_of(written("d", arch="qwen2"))}) == 3


def test_auto_finds_the_shipped_profile_whatever_the_file_is_called(
    tmp_path: Path, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = tiny_model(TinyConfig())
    schedule = KeepSchedule.parse("2:0.4,3:0.2", pool=3)
    note = {"name": "tiny", "fingerprint": fingerprint_of(path)}
    (tmp_path / "x.json").write_text(json.dumps({"model": note, **schedule.to_dict(), "measurements": {}}))
    with LazyModel(str(path), n_ctx=64) as model:
        assert model.schedule == KeepSchedule.auto(TinyConfig().n_layer)
    monkeypatch.setattr(model_file, "FOLDER", tmp_path)
    with LazyModel(str(path), n_ctx=64) as model:
        assert model.schedule == schedule


@pytest.mark.parametrize("keep", ["off", "1:0.5", "-1:0.2"])
def test_a_wrong_profile_in_the_file_is_nothing_to_who_chose_a_schedule(tmp_path: Path, keep: str) -> None:
    profile = {PROFILE_KEY: Kv('{"points": 3}', GGUFValueType.STRING)}
    path = tmp_path / "model.gguf"
    write_tiny_gguf(path, TinyConfig(), overrides=lambda kv, tensors: kv.update(profile))
    with pytest.raises(ModelFileError, match="keep profile has no list of points"):
        LazyModel(path, n_ctx=64)
    with LazyModel(path, n_ctx=64, keep=keep) as model:
        assert model.schedule == (None if keep == "off" else KeepSchedule.parse(keep))


def test_without_a_profile_one_line_names_calibrate(tiny_model: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    path, _ = tiny_model(TinyConfig())
    with LazyModel(str(path), n_ctx=64, keep="off"):
        assert caplog.messages == []
    with LazyModel(str(path), n_ctx=64):
        (message,) = caplog.messages
    assert "lazygguf calibrate" in message


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: str(path.stem))
def test_what_ships_is_a_profile_with_its_figures(path: Path) -> None:
    profile = json.loads(path.read_text(encoding="utf-8"))
    schedule = KeepSchedule.from_dict(profile)
    assert schedule.dense_unasked and schedule.decode_cached
    assert shipped_profile(profile["model"]["fingerprint"]) == profile
    assert profile["measurements"]["quality"] >= 0.9
    assert 0 < profile["measurements"]["share"] < 1


@pytest.mark.parametrize("path", sorted(FOLDER.glob("scoring/*.json")), ids=lambda path: str(path.stem))
def test_what_ships_for_drafts_is_a_scoring_profile_with_its_figures(path: Path) -> None:
    profile = json.loads(path.read_text(encoding="utf-8"))
    assert ScoringProfile.from_dict(profile).n_layer > 1
    assert shipped_scoring(profile["model"]["fingerprint"]) == profile
    assert 0 < profile["measurements"]["fresh"]["needed_mean"] < 0.2


@pytest.mark.model
def test_the_demo_models_profiles_ship(smollm2_path: Path) -> None:
    assert shipped_profile(fingerprint_of(smollm2_path)) is not None
    assert shipped_scoring(fingerprint_of(smollm2_path)) is not None


def test_an_unknown_model_has_none() -> None:
    assert shipped_profile(None) is None and shipped_scoring(None) is None
    assert shipped_profile("0" * 16) is None
