"""Model files, damaged or with a wrong keep or scoring profile: refused with a known exception, or they work."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Callable

import load_probe
from fuzz.lies import change_bytes, change_json
from gguf import GGUFValueType
from tiny_gguf import Kv, TinyConfig, write_tiny_gguf

from lazygguf.schedule.keep_schedule import PROFILE_KEY, KeepSchedule
from lazygguf.schedule.scoring import SCORING_KEY, ScoringProfile, resolve_scoring

REFUSALS = {"ModelFileError", "UnsupportedModelError", "LazyError", "MemoryError", "ValueError", "ContextFullError"}
STAGES = (*load_probe.STAGES, "eval")
SMALL: dict[str, Any] = {"n_layer": 3, "n_embd": 32, "n_head": 2, "n_head_kv": 1, "n_ff": 32, "n_vocab": 270}
CONFIGS = [
    TinyConfig(**SMALL),
    TinyConfig(tokenizer="bpe", arch="qwen2", tied=True, **SMALL),
    TinyConfig(arch="qwen3", **SMALL),
    TinyConfig(arch="gemma3", window=16, window_every=2, **SMALL),
    TinyConfig(arch="granite", embd_scale=2.0, residual_scale=0.5, logit_scale=4.0, **SMALL),
    TinyConfig(arch="olmo2", window=16, **SMALL),
    TinyConfig(arch="smollm3", **SMALL),
    TinyConfig(weight_type="Q8_0", rope_scaling="yarn", rope_freqs=True, **SMALL),
]
KEEP = KeepSchedule.parse("0:0.5,1:0.3", min_prompt=0, heads=(0, 1)).to_dict()
SCORING = ScoringProfile((1,), {1: (0, 1)}, pool=(2, 1)).to_dict()


def open_target(folder: Path) -> Callable[[random.Random], None]:
    path = folder / "model.gguf"
    whole = []
    for config in CONFIGS:
        write_tiny_gguf(path, config)
        whole.append(path.read_bytes())

    def with_profiles(rng: random.Random) -> None:
        def add(kv: Any, tensors: Any) -> None:
            for key, profile in ((PROFILE_KEY, KEEP), (SCORING_KEY, SCORING)):
                for _ in range(rng.randrange(3)):
                    profile = change_json(rng, profile)
                text = json.dumps(profile).encode()
                text = text if rng.random() < 0.8 else change_bytes(rng, text)
                kv[key] = Kv(text.decode("utf-8", "replace"), GGUFValueType.STRING)

        write_tiny_gguf(path, rng.choice(CONFIGS), overrides=add)
        if rng.random() < 0.3:
            path.write_bytes(change_bytes(rng, path.read_bytes()))

    def run(rng: random.Random) -> None:
        if rng.random() < 0.3:
            with_profiles(rng)
        else:
            data = rng.choice(whole)
            for _ in range(rng.randint(1, 3)):
                data = change_bytes(rng, data)
            path.write_bytes(data)
        answer = {stage: load_probe._run(load_probe._ACTIONS[stage], str(path)) for stage in STAGES}
        answer["scoring"] = load_probe._run(score_as_draft, str(path))
        for stage, outcome in answer.items():
            assert outcome is None or (outcome[0] in REFUSALS and outcome[1]), (stage, outcome)
        if answer["file"] is not None:  # what the container's checks refuse, all refuse
            assert all(outcome is not None for outcome in answer.values()), answer
        if answer["check"] is None:  # and a file that passes all checks loads
            assert answer["native"] is None, answer

    return run


def score_as_draft(path: str) -> None:
    from lazygguf._ffi import NativeFile

    with NativeFile(path) as file:
        file.check()
        resolve_scoring(None, metadata=file.metadata)
