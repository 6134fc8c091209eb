"""The same prompt and the same seed give the same answer: again, after other prompts, and in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from answers import TEXT
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel

SEEDS = (0, 7, 2**32 - 1)
LAZY = "1:0.5,3:0.25"
# one that draws from the whole vocabulary, one that cuts it as by default, and one that draws nothing
SAMPLING: tuple[dict[str, Any], ...] = (
    {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 0.8},
    {"temperature": 0},
)
CHAT = [{"role": "user", "content": TEXT + "\n\nwhere is the cat?"}]


@pytest.fixture(scope="module")
def path(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> str:
    return str(tiny_model(TinyConfig.for_type("Q8_0", tokenizer="bpe"))[0])


def opened(path: str, keep: str, **changes: Any) -> LazyModel:
    schedule = keep if keep == "off" else KeepSchedule.parse(keep, min_prompt=0, max_revive=4, n_query="question")
    return LazyModel(path, keep=schedule, **{"n_threads": 1, "n_ctx": 512, **changes})


def answers(model: LazyModel, seed: Optional[int]) -> list[str]:
    """Of every sampling, to a text and to a chat."""
    said = []
    for sampling in SAMPLING:
        text = model.create_completion(TEXT, seed=seed, max_tokens=24, **sampling)
        said.append(text["choices"][0]["text"])
        chat = model.create_chat_completion(CHAT, seed=seed, max_tokens=24, **sampling)
        said.append(chat["choices"][0]["message"]["content"])
    return said


@pytest.mark.parametrize("keep", ["off", LAZY])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sampling", SAMPLING)
def test_the_second_answer_is_the_first(path: str, keep: str, seed: int, sampling: dict[str, Any]) -> None:
    def text(model: LazyModel, **more: Any) -> str:
        result = model.create_completion(TEXT, seed=seed, max_tokens=30, **sampling, **more)
        return str(result["choices"][0]["text"])

    def chat(model: LazyModel) -> str:
        result = model.create_chat_completion(CHAT, seed=seed, max_tokens=30, **sampling)
        return str(result["choices"][0]["message"]["content"])

    with opened(path, keep) as model:
        for answer in (text, chat):
            model.reset()
            first = answer(model)
            n_answer = model.stats.n_decoded
            assert n_answer > 1
            assert [answer(model) for _ in range(2)] == [first] * 2
            assert model.stats.n_reused == model.stats.n_prompt
            model.reset()
            assert answer(model) == first
        model.reset()
        first = text(model)
        next(iter(model.create_completion(TEXT, stream=True, seed=seed, **sampling)))  # one that is not read to its end
        assert text(model) == first


@pytest.mark.parametrize("keep", ["off", LAZY])
def test_another_seed_is_another_answer(path: str, keep: str) -> None:
    with opened(path, keep) as model:
        said = [answers(model, seed) for seed in SEEDS]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert said[a][0] != said[b][0] and said[a][1] != said[b][1]
    assert said[0][-2:] == said[1][-2:] == said[2][-2:]  # greedy


def test_a_dense_answer_does_not_depend_on_what_was_asked_before(path: str) -> None:
    def text(model: LazyModel, prompt: str) -> str:
        return str(model.create_completion(prompt, seed=3, max_tokens=20, temperature=1.5)["choices"][0]["text"])

    prompts = (TEXT, TEXT[:60], TEXT[:60] + " where is the cat?", TEXT)
    with opened(path, "off") as model:
        in_a_row = [text(model, prompt) for prompt in prompts]
    for prompt, said in zip(prompts, in_a_row):
        with opened(path, "off") as model:
            assert text(model, prompt) == said


@pytest.mark.parametrize("seed", [None, -1])
def test_without_a_seed_answers_differ(path: str, seed: Optional[int]) -> None:
    with opened(path, "off") as model:
        said = {tuple(answers(model, seed)[:2]) for _ in range(3)}
    assert len(said) == 3


SCRIPT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from test_seeds import LAZY, SEEDS, answers, opened

for keep in ("off", LAZY):
    with opened(sys.argv[2], keep) as model:
        print(json.dumps([answers(model, seed) for seed in SEEDS]))
"""


def test_another_process_gives_the_same_answers(path: str) -> None:
    folders = json.dumps([str(Path(__file__).parent), *sys.path])
    done = subprocess.run([sys.executable, "-c", SCRIPT, folders, path], capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    for keep, said in zip(("off", LAZY), theirs):
        with opened(path, keep) as model:
            assert [answers(model, seed) for seed in SEEDS] == said
