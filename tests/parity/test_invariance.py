"""Batch-invariant reading: logits do not depend on how the prompt was cut.

On one machine and build the logits after a token are the same bits however the tokens before it were read: in ubatches
of any size, in one call or in many, after a prefix was reused, trimmed or generated again, beside another session, in
another process, with any number of threads. Numbers are compared bit by bit, with no tolerance.

A model or session is what a user has by default (``weights="fast"``). Each way of reading is a function of the same
tokens; a test names every way that differs, so that one run shows what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel, PruningPoint
from lazygguf._ffi import NativeModel, NativeSession, isa_names

Write = Callable[[TinyConfig], tuple[Path, Any]]

N_PROMPT = 150  # tokens of a tiny model: more than two ubatches of 64, and no multiple of anything
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 64, 65)  # prompts of so many tokens, read at once
# parts in which the prompt is read: begin, middle and end, halves, single tokens among others
CUTS = ((1,), (64,), (N_PROMPT - 1,), (75,), (5, 6, 70, 71, 131), (N_PROMPT - 3, N_PROMPT - 2, N_PROMPT - 1))
WEIGHT_TYPES = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"),
)


class Reading(NamedTuple):
    """What is read, and what a session is opened with."""

    model: NativeModel
    ids: list[int]
    settings: dict[str, Any]
    scores: Optional[np.ndarray] = None  # by position, for a point before layer 0
    protect: Sequence[int] = ()

    def session(self, **changes: Any) -> NativeSession:
        settings = {"n_ctx": 512, "n_ubatch": 512, "n_threads": 1, **self.settings, **changes}
        return NativeSession(self.model, **settings)

    def read(self, session: NativeSession, end: int, begin: Optional[int] = None) -> bytes:
        """Reads up to a token, or with a begin the tokens from there; the logits' bits."""
        first = session.n_tokens if begin is None else begin
        scores = None if self.scores is None else self.scores[:end]
        session.eval(self.ids[first:end], scores=scores, protect=[pos for pos in self.protect if pos < end])
        return bits(session)


def bits(session: NativeSession) -> bytes:
    logits = session.logits()
    assert logits is not None and np.isfinite(logits).all()
    return logits.tobytes()


# ---- ways to read the same tokens


def in_one_call(**settings: int) -> Callable[[Reading], bytes]:
    def read(what: Reading) -> bytes:
        with closing(what.session(**settings)) as session:
            return what.read(session, len(what.ids))

    return read


def in_ubatches(n_ubatch: int) -> Callable[[Reading], bytes]:
    return in_one_call(n_ubatch=n_ubatch)


def in_calls(cuts: Sequence[int], n_ubatch: int = 512) -> Callable[[Reading], bytes]:
    def read(what: Reading) -> bytes:
        with closing(what.session(n_ubatch=n_ubatch)) as session:
            for cut in cuts:
                what.read(session, cut)
            return what.read(session, len(what.ids))

    return read


def with_threads(n_threads: int) -> Callable[[Reading], bytes]:
    def read(what: Reading) -> bytes:
        with closing(what.session(n_threads=n_threads, n_ubatch=64)) as session:
            what.read(session, len(what.ids) - 4)
            for end in range(len(what.ids) - 3, len(what.ids)):
                what.read(session, end)
            return what.read(session, len(what.ids))

    return read


def after_other_tokens(what: Reading) -> bytes:
    """The begin of another prompt is used again."""
    n_common = 2 * len(what.ids) // 3
    with closing(what.session()) as session:
        what.read(session, n_common)
        session.eval(what.ids[30:70])
        session.trim(n_common)
        return what.read(session, len(what.ids))


def after_a_trim(n_left: int) -> Callable[[Reading], bytes]:
    def read(what: Reading) -> bytes:
        with closing(what.session()) as session:
            what.read(session, len(what.ids))
            session.trim(n_left)
            return what.read(session, len(what.ids))

    return read


def generated_again(what: Reading) -> bytes:
    """An answer is read token by token and given up."""
    with closing(what.session()) as session:
        what.read(session, len(what.ids))
        for token in what.ids[:9]:
            session.eval([token])
        session.trim(len(what.ids) - 1)
        return what.read(session, len(what.ids))


def after_a_reset(what: Reading) -> bytes:
    with closing(what.session(n_ubatch=64)) as session:
        session.eval(what.ids[50:120])
        session.eval(what.ids[:1])
        session.reset()
        return what.read(session, len(what.ids))


def beside_another_session(what: Reading) -> bytes:
    """Two sessions on one model take turns, over different tokens and in different ubatches."""
    with ExitStack() as stack:
        session, other = (stack.enter_context(closing(what.session(n_ubatch=n))) for n in (64, 7))
        other.eval(what.ids[10:60])
        for cut in (40, 41, 120):
            what.read(session, cut)
            other.eval(what.ids[:3])
            other.eval(what.ids[5:6])
        return what.read(session, len(what.ids))


WAYS: dict[str, Callable[[Reading], bytes]] = {
    **{f"n_ubatch {n}": in_ubatches(n) for n in (1, 7, 64)},
    **{f"calls cut at {', '.join(map(str, cuts))}": in_calls(cuts) for cuts in CUTS},
    "calls of 11": in_calls(range(11, N_PROMPT, 11), n_ubatch=7),
    "2 threads": with_threads(2),
    "3 threads": with_threads(3),
    "a reused prefix": after_other_tokens,
    **{f"trimmed to {n}": after_a_trim(n) for n in (1, 64, N_PROMPT - 2)},
    "generated again": generated_again,
    "after a reset": after_a_reset,
    "beside another session": beside_another_session,
}


def ways_that_differ(what: Reading, least: int = 1) -> list[str]:
    """Of WAYS, and reading token by token, where the logits after each of LENGTHS from `least` on count."""
    expected = in_ubatches(512)(what)
    found = [name for name, read in WAYS.items() if read(what) != expected]
    with closing(what.session()) as session:
        one_by_one = {end: what.read(session, end) for end in range(1, len(what.ids) + 1)}
    if one_by_one[len(what.ids)] != expected:
        found.append("one by one")
    for end in (n for n in LENGTHS if n >= least):
        with closing(what.session()) as session:
            if what.read(session, end) != one_by_one[end]:
                found.append(f"{end} tokens at once")
    return found


def prompt(n: int = N_PROMPT, seed: int = 1, n_vocab: int = 320) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, n_vocab, n)]


def reading(write: Write, config: TinyConfig, **settings: Any) -> Reading:
    return Reading(NativeModel(write(config)[0], weights="fast"), prompt(), settings)


# ---- dense


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_every_type_of_weights_is_read_the_same_however_it_is_cut(tiny_model: Write, weight_type: str) -> None:
    assert ways_that_differ(reading(tiny_model, TinyConfig.for_type(weight_type, seed=2))) == []


SHAPES = {
    "qwen2": TinyConfig.for_type("Q8_0", arch="qwen2", seed=3),
    "qwen3": TinyConfig.for_type("Q4_K", arch="qwen3", seed=3),
    "one K/V head": TinyConfig.for_type("Q4_1", n_head_kv=1, seed=3),
    "no grouped heads": TinyConfig.for_type("Q4_0", n_head_kv=4, seed=3),
    "7 heads on 1": TinyConfig(n_embd=448, n_head=7, n_head_kv=1, n_layer=2, weight_type="Q8_0", seed=3),
    "3 heads on 1": TinyConfig(n_embd=96, n_head=6, n_head_kv=2, n_layer=3, weight_type="Q4_0", seed=3),
    "heads of 64": TinyConfig(n_embd=256, n_head=4, n_head_kv=2, n_layer=3, weight_type="Q4_0", seed=3),
    "heads of 128": TinyConfig(n_embd=256, n_head=2, n_head_kv=1, n_layer=3, weight_type="Q6_K", n_ff=512, seed=3),
    "heads of 24": TinyConfig(n_embd=64, n_head=4, n_head_kv=2, head_dim=24, n_layer=3, seed=3),
    "heads of 40": TinyConfig(n_embd=160, n_head=4, n_head_kv=2, n_layer=3, weight_type="Q8_0", seed=3),
    "odd sizes": TinyConfig(n_embd=64, n_ff=160, n_vocab=333, weight_type="Q5_0", n_layer=3, seed=3),
    "tied": TinyConfig.for_type("Q6_K", tied=True, seed=3),
    "linear rope": TinyConfig(rope_scaling="linear", weight_type="Q4_0", seed=3),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_every_shape_is_read_the_same_however_it_is_cut(tiny_model: Write, name: str) -> None:
    assert ways_that_differ(reading(tiny_model, SHAPES[name])) == []


@pytest.mark.parametrize(("type_k", "type_v"), [("f32", "f32"), ("f16", "f32"), ("q8_0", "f16"), ("q8_0", "q8_0")])
@pytest.mark.parametrize("config", [SHAPES["heads of 64"], TinyConfig(n_embd=128, seed=3)], ids=["64", "32"])
def test_every_type_of_cache_is_read_the_same_however_it_is_cut(
    tiny_model: Write, config: TinyConfig, type_k: str, type_v: str
) -> None:
    assert ways_that_differ(reading(tiny_model, config, type_k=type_k, type_v=type_v)) == []


def test_a_mean_of_attention_does_not_depend_on_how_the_tokens_before_it_were_read(tiny_model: Write) -> None:
    """What a draft scores with. The asking tokens themselves are read in one call."""
    from lazygguf.read.attention import AttentionReader

    model = NativeModel(tiny_model(TinyConfig.for_type("Q8_0", seed=2))[0], weights="fast")
    ids, span = prompt(), (N_PROMPT - 12, N_PROMPT)
    found = {}
    for n_ubatch in (7, 64, 512):
        with closing(AttentionReader(model, 4, n_ctx=512, n_ubatch=n_ubatch)) as reader:
            found[f"n_ubatch {n_ubatch}"] = reader.read(ids, span, (1, 3)).tobytes()
            reader.read([*ids[:100], *ids[:40]], (100, 112))
            found[f"n_ubatch {n_ubatch}, reused"] = reader.read(ids, span, (1, 3)).tobytes()
    expected = found["n_ubatch 512"]
    assert [name for name, bytes_ in found.items() if bytes_ != expected] == []


# ---- schedules whose kept sets are equal


PROTECTED = tuple(range(2, N_PROMPT, 3))  # more than the points keep: so these are kept, and nothing else


def schedule_of(*points: PruningPoint, **settings: Any) -> KeepSchedule:
    return KeepSchedule(points, **{"n_sink": 0, "min_prompt": 0, **settings})


ALL_KEPT = schedule_of(PruningPoint(0, 1.0), PruningPoint(2, 1.0))
FEW_KEPT = schedule_of(PruningPoint(0, 0.1), PruningPoint(2, 0.05))
ENTERED = schedule_of(PruningPoint(-1, 0.01))
ENTER_HOW = ((1, 1), (7, 1), (64, 1), (7, 2), (512, 3))  # n_ubatch, n_threads
TYPES_OF_SCHEDULES = ("F32", "Q4_0", "Q8_0", "Q4_K")


@pytest.mark.parametrize("weight_type", TYPES_OF_SCHEDULES)
def test_points_that_keep_all_are_read_as_if_there_were_none(tiny_model: Write, weight_type: str) -> None:
    config = TinyConfig.for_type(weight_type, seed=4)
    cut, whole = (reading(tiny_model, config, schedule=schedule) for schedule in (ALL_KEPT, None))
    assert ways_that_differ(cut) == []
    assert in_ubatches(512)(cut) == in_ubatches(512)(whole)


@pytest.mark.parametrize("weight_type", TYPES_OF_SCHEDULES)
def test_the_same_kept_tokens_are_read_the_same_however_the_prompt_is_cut(tiny_model: Write, weight_type: str) -> None:
    what = reading(tiny_model, TinyConfig.for_type(weight_type, seed=4), schedule=FEW_KEPT)._replace(protect=PROTECTED)
    with closing(what.session()) as session:
        what.read(session, N_PROMPT)
        assert session.live(2).tolist() == sorted({*PROTECTED, N_PROMPT - 1})
    # before the first protected token the scores decide, and a decode step has those of the step before
    assert ways_that_differ(what, least=PROTECTED[0] + 1) == []


@pytest.mark.parametrize("weight_type", TYPES_OF_SCHEDULES)
def test_the_same_tokens_before_layer_0_are_read_the_same_however_the_prompt_is_cut(
    tiny_model: Write, weight_type: str
) -> None:
    scores = np.zeros(N_PROMPT, np.float32)
    scores[list(PROTECTED)] = np.inf
    what = reading(tiny_model, TinyConfig.for_type(weight_type, seed=4), schedule=ENTERED)._replace(scores=scores)
    # in one call: in several the question, which always enters, would be another one in each
    ways = {f"n_ubatch {n_ubatch}, {n} threads": {"n_ubatch": n_ubatch, "n_threads": n} for n_ubatch, n in ENTER_HOW}
    found = {name: in_one_call(**settings)(what) for name, settings in ways.items()}
    assert [name for name, bits_ in found.items() if bits_ != in_one_call()(what)] == []


# ---- other processes, other instruction sets


def other_process(name: str, *paths: Path, isa: str = "") -> Any:
    """What a function of this file gives in a process of its own, from JSON."""
    code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import test_invariance as here; "
    code += f"print(json.dumps(here.{name}(*sys.argv[2:])))"
    folders = json.dumps([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, folders, *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "LAZYGGUF_ISA": isa},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def hash_of(path: str) -> str:
    what = Reading(NativeModel(path, weights="fast"), prompt(), {})
    return hashlib.sha256(in_calls((100, 101))(what)).hexdigest()


def differing(*paths: str) -> list[list[str]]:
    return [ways_that_differ(Reading(NativeModel(path, weights="fast"), prompt(), {})) for path in paths]


@pytest.mark.parametrize("weight_type", ["F16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K"])
def test_other_processes_give_the_same_logits(tiny_model: Write, weight_type: str) -> None:
    path = tiny_model(TinyConfig.for_type(weight_type, seed=2))[0]
    assert {other_process("hash_of", path) for _ in range(3)} == {hash_of(str(path))}


@pytest.mark.parametrize("isa", isa_names())
def test_every_instruction_set_reads_the_same_however_the_prompt_is_cut(tiny_model: Write, isa: str) -> None:
    types = ("F16", "Q4_1", "Q8_0", "Q4_K", "Q6_K")
    paths = [tiny_model(TinyConfig.for_type(weight_type, n_head_kv=1, seed=2))[0] for weight_type in types]
    assert dict(zip(types, other_process("differing", *paths, isa=isa))) == {name: [] for name in types}


# ---- real models


@pytest.fixture(params=["smollm2", "qwen"])
def real(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield request.getfixturevalue(f"{request.param}_path")


def real_ids(path: Path, n: int) -> list[int]:
    from lazygguf.text.tokenizer import Tokenizer

    text = Path(__file__).parent.parent.parent / "tools" / "data" / "jargon.txt"
    with closing(Tokenizer(str(path))) as tokenizer:
        return tokenizer.tokenize(text.read_bytes()[:2000])[:n]


@pytest.mark.model
def test_real_models_are_read_the_same_however_the_prompt_is_cut(real: Path) -> None:
    what = Reading(NativeModel(real, weights="fast"), real_ids(real, N_PROMPT), {})
    expected = in_ubatches(512)(what)
    assert [name for name in WAYS_OF_REAL if WAYS[name](what) != expected] == []
    short = what._replace(ids=what.ids[:40])
    assert in_ubatches(1)(short) == in_ubatches(512)(short)


WAYS_OF_REAL = (
    *("n_ubatch 7", "n_ubatch 64", "calls cut at 5, 6, 70, 71, 131", "2 threads", "a reused prefix", "trimmed to 148"),
    *("generated again", "beside another session"),
)


def hash_of_real(path: str) -> str:
    what = Reading(NativeModel(path, weights="fast"), real_ids(Path(path), 60), {})
    return hashlib.sha256(in_calls((50, 51))(what)).hexdigest()


@pytest.mark.model
def test_real_models_give_the_same_logits_in_other_processes(real: Path) -> None:
    assert {other_process("hash_of_real", real) for _ in range(2)} == {hash_of_real(str(real))}


@pytest.mark.model
@pytest.mark.parametrize("keep", ["off", "auto"])
def test_the_second_answer_of_a_real_model_is_the_first(real: Path, keep: str) -> None:
    text = (Path(__file__).parent.parent.parent / "tools" / "data" / "jargon.txt").read_text(encoding="utf-8")[:1500]
    chat: Any = [{"role": "user", "content": f"{text}\n\nWhat is this text about?"}]

    def answer(model: LazyModel, seed: int) -> str:
        result = model.create_chat_completion(chat, max_tokens=12, temperature=0.9, seed=seed)
        return str(result["choices"][0]["message"]["content"])

    with LazyModel(real, n_ctx=1024, n_threads=1, keep=keep) as model:
        for seed in (1, 2**32 - 1):
            assert len({answer(model, seed) for _ in range(2)}) == 1
        first = answer(model, 1)
        model.create_completion("Once upon a time", max_tokens=3)
        assert keep == "auto" or answer(model, 1) == first
