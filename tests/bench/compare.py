"""Are the logits of two builds the same bits? ``write`` records one build, ``check`` compares another with it.

The cases: tiny models of both architectures in several weight types and forms of the weights, dense and with
schedules, each read in several ubatches, decoded, asked again, trimmed and read on; and real model files, a text of
600 tokens and 8 decode steps, and a chat. Only what older builds offer too is called, so that this file can run under
both. Logits depend on the CPU: write and check on one machine, with the same number of threads.

    python tests/bench/compare.py write before.json -m MODEL -m MODEL      # under the one build
    python tests/bench/compare.py check before.json -m MODEL -m MODEL      # under the other

Exit status 1 where a case differs; its line then names the first step that does, and the NMSE of the last step.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from report import nmse  # noqa: E402
from tiny_gguf import TinyConfig, write_tiny_gguf  # noqa: E402

from lazygguf import KeepSchedule, LazyModel, PruningPoint  # noqa: E402
from lazygguf._ffi import NativeModel, NativeSession  # noqa: E402

TEXT = HERE.parent.parent / "tools" / "data" / "jargon.txt"
N_TEXT, N_DECODE = 600, 8
ARCHS = ("llama", "qwen2")
WEIGHT_TYPES = ("F32", "F16", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K")
FORMS = ("as-is", "fast")


def schedule_of(*points: PruningPoint, **settings: Any) -> KeepSchedule:
    return KeepSchedule(points, **{"n_sink": 2, "min_prompt": 0, **settings})


# for at least 4 layers of 4 heads
SCHEDULES: dict[str, Optional[KeepSchedule]] = {
    "dense": None,
    "paper": KeepSchedule.paper("0:0.6,2:0.3"),
    "question": schedule_of(PruningPoint(1, 0.4, n_query="question", pool=5, query_max=True), PruningPoint(2, 0.2)),
    "window and pool": schedule_of(PruningPoint(0, 0.5, n_query=8, pool=7), PruningPoint(2, 0.25, n_query=3)),
    "heads": schedule_of(PruningPoint(1, 0.5, heads=((0, 3), (1, 0), (1, 2)), n_query=4), PruningPoint(2, 0.3, (1,))),
    "layers": schedule_of(PruningPoint(2, 0.4, n_layers=3, n_query=4, pool=3)),
    "mass": schedule_of(PruningPoint(1, 0.8, mass=0.7, keep_min=0.1), PruningPoint(2, 0.5, mass=0.5, n_query=6)),
    "revival": schedule_of(PruningPoint(1, 0.4), PruningPoint(2, 0.2), max_revive=3, mean_revive=1.5),
    "margin": schedule_of(PruningPoint(1, 0.4), max_revive=3, revive_margin=0.3, decode_cached=True),
    "entry": schedule_of(PruningPoint(-1, 0.4, pool=3)),
    "entry and more": schedule_of(PruningPoint(-1, 0.6, mass=0.9), PruningPoint(1, 0.3, n_query="question")),
}

# beside the architectures and weight types: other rope, tied embeddings, other types of the K/V cache
VARIANTS = {
    "rope freqs": (TinyConfig(rope_freqs=True), "f32"),
    "linear rope": (TinyConfig(rope_scaling="linear"), "f32"),
    "yarn": (TinyConfig(arch="qwen2", rope_scaling="yarn"), "f32"),
    "tied": (TinyConfig(tied=True), "f16"),
    "one K/V head": (TinyConfig(n_head_kv=1), "f16"),
    "q8_0 K/V": (TinyConfig.for_type("Q4_K"), "q8_0"),
}


class Step(NamedTuple):
    """What a case's step came to: hashes, and the logits themselves."""

    name: str
    logits: np.ndarray
    kept: str = ""

    @property
    def hash(self) -> str:
        return " ".join(filter(None, (short_hash(self.logits.astype("<f4").tobytes()), self.kept)))


Case = tuple[str, list[Step]]


def short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def tokens(n: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, 300, n)]


# ---- tiny models ----


def tiny_cases(n_threads: int) -> Iterator[Case]:
    configs = {f"{arch} {kind}": (arch, kind) for arch in ARCHS for kind in WEIGHT_TYPES}
    with tempfile.TemporaryDirectory(prefix="lazygguf-compare-") as folder:
        path = Path(folder) / "tiny.gguf"
        for name, (arch, kind) in configs.items():
            write_tiny_gguf(path, TinyConfig.for_type(kind, arch=arch, seed=3))
            for form in FORMS:
                yield from model_cases(path, f"{name} {form}", form, "f32" if kind == "F32" else "f16", n_threads)
        for name, (config, type_kv) in VARIANTS.items():
            write_tiny_gguf(path, replace(config, seed=4))
            yield from model_cases(path, name, "as-is", type_kv, n_threads)


def model_cases(path: Path, name: str, form: str, type_kv: str, n_threads: int) -> Iterator[Case]:
    model = NativeModel(path, weights=form)
    for schedule_name, schedule in SCHEDULES.items():
        session = NativeSession(
            model, n_ctx=512, n_ubatch=64, n_threads=n_threads, type_k=type_kv, type_v=type_kv, schedule=schedule
        )
        yield f"{name}, {schedule_name}", list(session_steps(session, schedule))
        session.close()
    model.close()


def session_steps(session: NativeSession, schedule: Optional[KeepSchedule]) -> Iterator[Step]:
    """A prompt of several ubatches, decode steps, a later turn, a question read long ago, and more after a trim."""
    yield read(session, schedule, "prompt", tokens(200, 5), (150, 162))
    for i, token in enumerate(tokens(N_DECODE, 6)):
        yield read(session, schedule, f"decode {i}", [token])
    yield read(session, schedule, "later turn", tokens(90, 7), (270, 280))
    yield read(session, schedule, "old question", tokens(3, 8), (20, 40))
    session.trim(120)
    yield read(session, schedule, "after a trim", tokens(70, 9))
    yield read(session, schedule, "decode after it", tokens(1, 10))


def read(
    session: NativeSession,
    schedule: Optional[KeepSchedule],
    name: str,
    ids: list[int],
    span: Optional[tuple[int, int]] = None,
) -> Step:
    n_tokens = session.n_tokens + len(ids)
    entered = schedule is not None and schedule.entry is not None
    scores = np.random.default_rng(n_tokens).random(n_tokens).astype(np.float32) if entered else None
    session.eval(ids, span, scores=scores)
    live = [session.live(s).astype("<i4").tobytes() for s in range(len(session.stats().n_layers))]
    return Step(name, logits_of(session.logits()), short_hash(b"|".join(live)))


def logits_of(logits: Optional[np.ndarray]) -> np.ndarray:
    assert logits is not None
    return logits


# ---- real models ----


def real_cases(path: Path, n_threads: int) -> Iterator[Case]:
    spelled = KeepSchedule.parse("6:0.6,12:0.3", n_query=8, pool=7, min_prompt=0)
    for name, keep in (("dense", "off"), ("auto", "auto"), ("spelled", spelled)):
        model = LazyModel(path, keep=keep, weights="as-is", n_ctx=1024, n_ubatch=128, n_threads=n_threads)
        yield f"{path.name}, {name}, text", list(text_steps(model))
        yield f"{path.name}, {name}, chat", list(chat_steps(model))
        model.close()


def text_steps(model: LazyModel) -> Iterator[Step]:
    """The text, its last 12 tokens as the question, then its next tokens one at a time."""
    ids = model.tokenize(TEXT.read_bytes())[: N_TEXT + N_DECODE]
    model.reset()
    model.eval(ids[:N_TEXT], query_span=(N_TEXT - 12, N_TEXT))
    yield Step("prompt", logits_of(model.logits))
    for i, token in enumerate(ids[N_TEXT:]):
        model.eval([token])
        yield Step(f"decode {i}", logits_of(model.logits))


def chat_steps(model: LazyModel) -> Iterator[Step]:
    """Two questions about the text, answered greedily."""
    text = model.detokenize(model.tokenize(TEXT.read_bytes(), add_bos=False)[:N_TEXT]).decode("utf-8", "ignore")
    model.reset()
    messages: list[dict[str, str]] = []
    for i, question in enumerate((f"{text}\n\nWhat is this text about?", "Who wrote it?")):
        messages.append({"role": "user", "content": question})
        result: Any = model.create_chat_completion(messages, temperature=0.0, max_tokens=N_DECODE)
        answer = str(result["choices"][0]["message"]["content"])
        messages.append({"role": "assistant", "content": answer})
        yield Step(f"answer {i}", logits_of(model.logits), short_hash(answer.encode()))


# ---- records ----


def record_of(steps: list[Step]) -> dict[str, Any]:
    last = base64.b64encode(steps[-1].logits.astype("<f4").tobytes()).decode()
    return {"steps": {step.name: step.hash for step in steps}, "last": last}


def difference(steps: list[Step], recorded: Optional[dict[str, Any]]) -> Optional[str]:
    """What differs from the record, in words; None where nothing does."""
    if recorded is None:
        return "not in the record"
    hashes = {step.name: step.hash for step in steps}
    if hashes == recorded["steps"]:
        return None
    first = next((name for name, found in hashes.items() if recorded["steps"].get(name) != found), "the steps' number")
    expected = np.frombuffer(base64.b64decode(recorded["last"]), "<f4")
    return f"from {first} on; NMSE of the last step {nmse(steps[-1].logits, expected):.3g}"


def parse(argv: Optional[list[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "check"))
    parser.add_argument("record", type=Path, help="JSON file")
    parser.add_argument("-m", "--model", type=Path, action="append", default=[], help="GGUF file; may be repeated")
    parser.add_argument("-t", "--threads", type=int, default=1)
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    recorded = {} if args.action == "write" else json.loads(args.record.read_text())
    found: dict[str, dict[str, Any]] = {}
    n_different = 0
    for cases in (tiny_cases(args.threads), *(real_cases(path, args.threads) for path in args.model)):
        for name, steps in cases:
            found[name] = record_of(steps)
            problem = None if args.action == "write" else difference(steps, recorded.get(name))
            if problem is not None:
                n_different += 1
                print(f"DIFFERS  {name}: {problem}", flush=True)
    if args.action == "write":
        args.record.write_text(json.dumps(found, indent=0))
        print(f"{len(found)} cases written to {args.record}")
        return 0
    missing = [name for name in recorded if name not in found]
    for name in missing:
        print(f"MISSING  {name}: in the record, not run (-m MODEL?)")
    print(f"{len(found)} cases, {n_different} differ, {len(missing)} missing")
    return 1 if n_different or missing else 0


if __name__ == "__main__":
    sys.exit(main())
