"""Saved sessions, damaged or with wrong values under right checksums: refused, or a session that can go on.

What is refused leaves the session that was to take it as it was.
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any, Callable

from fuzz.lies import NUMBERS, change_bytes, change_json
from saved_sessions import CONFIG, load_bytes, new_session, saved_bytes, seen, use
from tiny_gguf import write_tiny_gguf

from lazygguf import ContextFullError, KeepSchedule, LazyError, LazyModel, SessionFileError
from lazygguf._ffi import NativeModel, NativeSession
from lazygguf.files.block_file import BlockReader, BlockWriter, Part

SCHEDULES = [
    None,
    KeepSchedule.parse("0:0.6,2:0.3", min_prompt=0, heads=(0, 2), n_query=3),
    KeepSchedule.parse("-1:0.5,1:0.3,3:0.2", min_prompt=0, n_query="question", max_revive=2),
]
USES: list[list[Any]] = [
    [("eval", 20, None)],
    [("eval", 40, 0.5), ("mark",), ("eval", 1, None), ("eval", 1, None)],
    [("eval", 30, None), ("eval", 1, None), ("trim", 0.7), ("eval", 9, 0.0), ("mark",)],
    [],
]


def open_target(folder: Path) -> Callable[[random.Random], None]:
    path = folder / "model.gguf"
    write_tiny_gguf(path, CONFIG)
    weights = NativeModel(path)
    saved: list[tuple[Any, bytes]] = []
    for schedule in SCHEDULES:
        for ops in USES:
            session = new_session(weights, schedule)
            for seed, op in enumerate(ops):
                use(session, schedule, op, seed, [])
            saved.append((schedule, saved_bytes(session)))
    opened = [LazyModel(path, n_threads=1, n_ctx=256, keep=schedule or "off") for schedule in SCHEDULES]
    file = folder / "session"

    def raw(rng: random.Random) -> None:
        """The native core's bytes, which no checksum guards."""
        schedule, data = rng.choice(saved)
        session = new_session(weights, schedule)
        use(session, schedule, ("eval", 15, None), 5, [])
        for _ in range(rng.randint(1, 3)):
            data = change_numbers(rng, data) if rng.random() < 0.7 else change_bytes(rng, data)
        before = seen(session), saved_bytes(session)
        try:
            load_bytes(session, data)
        except (SessionFileError, ContextFullError) as error:
            assert str(error)
            assert (seen(session), saved_bytes(session)) == before
        go_on(rng, session, schedule)

    def framed(rng: random.Random) -> None:
        """A file, damaged, or written anew with a wrong header or a wrong part."""
        model = rng.choice(opened)
        model.reset()
        model.eval(list(range(3, 3 + rng.randint(1, 40))))
        model.save_session(file, extra=[1])
        data = file.read_bytes()
        changed = change_bytes(rng, data) if rng.random() < 0.5 else rewritten(rng, data)
        file.write_bytes(changed)
        model.reset()
        model.eval([5, 6, 7])
        logits = model.logits
        assert logits is not None
        try:
            model.load_session(file)
        except (SessionFileError, ContextFullError):
            after = model.logits
            assert after is not None and after.tobytes() == logits.tobytes() and model.n_tokens == 3
        file.unlink()
        if model.n_tokens < 256:
            try:
                model.eval([8])
            except LazyError as error:  # rows that were changed under a right checksum
                assert "finite" in str(error), error

    return lambda rng: raw(rng) if rng.random() < 0.7 else framed(rng)


def change_numbers(rng: random.Random, data: bytes) -> bytes:
    """A number of 4 bytes among the state's, which come first, replaced by one near it or by one that lies."""
    at = 8 + 4 * rng.randrange(max((min(len(data), 4096) - 12) // 4, 1))
    now = int.from_bytes(data[at : at + 4], "little", signed=True)
    number = rng.choice([now + rng.choice([-2, -1, 1, 2]), rng.choice(NUMBERS), rng.randrange(64)])
    return data[:at] + (number % 2**32).to_bytes(4, "little") + data[at + 4 :]


def rewritten(rng: random.Random, data: bytes) -> bytes:
    """The file with something changed and checksums that fit."""
    blocks = BlockReader(io.BytesIO(data), "file")
    header: Any = blocks.header
    parts = [(part.name, blocks.read_all()) for part in blocks.parts()]
    del header["parts"]
    how = rng.randrange(3)
    if how == 0:
        header = change_json(rng, header)
    elif how == 1:
        i = rng.randrange(len(parts))
        parts[i] = (parts[i][0], change_bytes(rng, parts[i][1]))
    else:
        parts = rng.choice([parts[::-1], parts[:1], [*parts, parts[0]], []])
    out = io.BytesIO()
    named = [Part(name, len(content)) for name, content in parts]
    writer = BlockWriter(out, header if isinstance(header, dict) else {}, named)
    for _, content in parts:
        writer.write(memoryview(content))
        writer.end_part()
    return out.getvalue()


def go_on(rng: random.Random, session: NativeSession, schedule: Any) -> None:
    """Whatever was loaded, steps run on it or fail in order."""
    for op in (("eval", 1, None), ("back",), ("eval", 3, None), ("trim", rng.random()), ("eval", 1, None), ("reset",)):
        try:
            use(session, schedule, op, 3, [rng.randrange(40)])
        except LazyError as error:  # numbers that are not finite
            assert "finite" in str(error), error
        seen(session)
