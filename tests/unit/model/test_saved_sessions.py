"""Saved sessions of ``LazyModel``: after a restart answers are those without one, and wrong files change nothing."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from llama_cpp.llama_cache import LlamaDiskCache, LlamaRAMCache
from tiny_gguf import TinyConfig

from lazygguf import ContextFullError, KeepSchedule, LazyModel, SessionFileError
from lazygguf.files.block_file import MAGIC, BlockReader, BlockWriter

Write = Callable[[TinyConfig], tuple[Path, Any]]

PROGRAM = Path(__file__).parents[2] / "restart_program.py"
TARGET = TinyConfig(tokenizer="bpe", n_embd=128, n_ff=256, n_ctx_train=2048)
SMALL = TinyConfig(tokenizer="bpe", n_embd=32, n_ff=32, n_layer=4, n_ctx_train=1024, seed=5)
TEXT = "the cat sat on the mat and the dog ran to the door of the house. " * 4
DOCUMENT = f"{TEXT}\n\nwhere did the dog run?"
MORE = "and who sat on the mat?"
POINTS = KeepSchedule.parse("1:0.6,2:0.4,4:0.2", min_prompt=0)
SCHEDULES = {
    "dense": None,
    "points": POINTS,
    "question": KeepSchedule.parse("1:0.5,3:0.2", min_prompt=0, n_query="question", heads=(0, 2), max_revive=2),
    "draft": KeepSchedule.parse("-1:0.4,2:0.3", min_prompt=0),
}


@pytest.fixture(scope="module")
def target(tiny_model: Write) -> str:
    return str(tiny_model(TARGET)[0])


@pytest.fixture(scope="module")
def small(tiny_model: Write) -> str:
    return str(tiny_model(SMALL)[0])


def command(path: str, options: dict[str, Any], steps: list[Any]) -> list[str]:
    return [sys.executable, str(PROGRAM), path, json.dumps(options), json.dumps(steps)]


def run(path: str, options: dict[str, Any], *steps: Any) -> list[Any]:
    """What a process of its own sees at each step."""
    done = subprocess.run(command(path, options, list(steps)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def options_of(name: str, small: str) -> dict[str, Any]:
    schedule = SCHEDULES[name]
    options: dict[str, Any] = {"n_threads": 1, "n_ubatch": 32, "n_ctx": 1024}
    options["keep" if schedule is None else "schedule"] = "off" if schedule is None else schedule.to_dict()
    return {**options, "draft": small} if name == "draft" else options


@pytest.mark.parametrize("name", SCHEDULES)
def test_after_a_restart_the_next_answers_are_those_without_one(
    name: str, target: str, small: str, tmp_path: Path
) -> None:
    session, options = str(tmp_path / "session"), options_of(name, small)
    one = ["ask", [DOCUMENT]]
    more = ["ask", [DOCUMENT, "the door", MORE]]
    first, said, again, second, third = run(target, options, one, ["save", session], one, more, more)
    loaded, *restarted = run(target, options, ["load", session], one, more, more)
    assert loaded == {"said": session} and said == "saved"
    assert restarted == [again, second, third]
    assert again[1][3] == again[1][1]  # nothing was read again
    assert run(target, options, ["load", session], more, more) == [loaded, second, third]
    if name == "draft":  # the draft reads the question only: it goes on from what it had read
        assert first[1][4] > 2 * second[1][4] > 0


def test_a_session_goes_on_with_another_draft_which_reads_again(
    target: str, small: str, tiny_model: Write, tmp_path: Path
) -> None:
    session, options = str(tmp_path / "session"), options_of("draft", small)
    more = ["ask", [DOCUMENT, "the door", MORE]]
    first, _ = run(target, options, ["ask", [DOCUMENT]], ["save", session])
    options["draft"] = str(tiny_model(TinyConfig(**{**vars(SMALL), "seed": 6}))[0])
    loaded, second = run(target, options, ["load", session], more)
    assert loaded == {"said": session}
    assert second[1][3] > 100 and second[1][4] > first[1][4]  # the model goes on, its draft begins anew


def test_the_models_seed_goes_on_too(target: str, small: str, tmp_path: Path) -> None:
    session, options = str(tmp_path / "session"), {**options_of("points", small), "seed": 7}
    asked = ["sample", [DOCUMENT]]
    _, _, second, third = run(target, options, asked, ["save", session], asked, asked)
    assert run(target, options, ["load", session], asked, asked)[1:] == [second, third]
    assert second[0] != third[0]


# ---- files that do not fit or are damaged --------------------------------------------------------------------------


@pytest.fixture
def model(target: str) -> Any:
    with LazyModel(target, n_threads=1, n_ubatch=32, n_ctx=256, keep=POINTS) as opened:
        opened.eval(list(range(3, 90)))
        opened.eval([5])
        yield opened


def held(model: LazyModel) -> list[Any]:
    """What the model holds, and what it gives next; it is left as it was."""
    context: Any = model._context
    logits = model.logits
    return [context.ids, None if logits is None else logits.tobytes(), context._session.saved_bytes()]


def refused(model: LazyModel, path: Path, error: type[Exception] = SessionFileError) -> str:
    before = held(model)
    with pytest.raises(error) as caught:
        model.load_session(path)
    assert held(model) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keep": "off"}, "keep schedule '1:0.6,2:0.4,4:0.2', this model has 'off'"),
        ({"keep": KeepSchedule.parse("1:0.6,2:0.4,4:0.2", min_prompt=0, n_sink=1)}, "another n_sink of the keep"),
        ({"type_k": "f32"}, "type_k 'f16', this model has 'f32'; open it with --cache-type-k f16"),
        ({"type_v": "f32"}, "type_v 'f16', this model has 'f32'; open it with --cache-type-v f16"),
    ],
)
def test_other_options_are_refused_with_the_way_out(
    change: dict[str, Any], said: str, model: LazyModel, target: str, tmp_path: Path
) -> None:
    model.save_session(tmp_path / "session")
    options: dict[str, Any] = {"n_threads": 1, "n_ctx": 256, "keep": POINTS, **change}
    with LazyModel(target, **options) as other:
        other.eval([3, 4, 5])
        assert said in refused(other, tmp_path / "session")


def test_another_model_is_refused(model: LazyModel, tiny_model: Write, tmp_path: Path) -> None:
    model.save_session(tmp_path / "session")
    config = TinyConfig(**{**vars(TARGET), "seed": 9})
    with LazyModel(str(tiny_model(config)[0]), n_threads=1, keep=POINTS) as other:
        other.eval([3, 4, 5])
        assert "saved with another model" in refused(other, tmp_path / "session")
    config = TinyConfig(**{**vars(TARGET), "weight_type": "Q8_0"})
    with LazyModel(str(tiny_model(config)[0]), n_threads=1, keep=POINTS) as other:
        other.eval([3, 4, 5])
        assert "another quantization" in refused(other, tmp_path / "session")


def test_a_session_that_does_not_fit_into_the_context_is_refused(model: LazyModel, target: str, tmp_path: Path) -> None:
    model.save_session(tmp_path / "session")
    with LazyModel(target, n_threads=1, n_ctx=50, keep=POINTS) as other:
        other.eval([3, 4, 5])
        assert "holds 88 tokens, which do not fit into n_ctx 50" in refused(
            other, tmp_path / "session", ContextFullError
        )


def test_another_build_is_said_and_goes_on(
    model: LazyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model.save_session(tmp_path / "session")
    monkeypatch.setattr("lazygguf.model.sessions.isa", lambda: "other")
    model.load_session(tmp_path / "session")
    assert "answers may differ in the last bits" in caplog.text and "here other" in caplog.text


def test_what_is_no_session_is_refused(model: LazyModel, target: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"LAZY", b"GGUF" * 100, b"\0" * 100, MAGIC, MAGIC + b"\0" * 100):
        path.write_bytes(data)
        assert str(path) in refused(model, path)
    assert "no saved session" in refused(model, Path(target))
    refused(model, tmp_path / "missing", FileNotFoundError)
    refused(model, tmp_path, IsADirectoryError)


def test_a_cut_or_changed_byte_is_noticed_wherever_it_is(model: LazyModel, tmp_path: Path) -> None:
    path, rng = tmp_path / "session", random.Random(1)
    model.save_session(path, extra={"x": "y" * 100})
    data = path.read_bytes()
    n_header = int.from_bytes(data[24:32], "little")
    borders = [0, 8, 12, 16, 24, 32, 36, 40, 40 + n_header, 40 + n_header + 104, len(data)]
    cuts = {at + step for at in borders for step in (-1, 0, 1)} | {rng.randrange(len(data)) for _ in range(60)}
    for cut in sorted(cuts & set(range(len(data)))):
        path.write_bytes(data[:cut])
        refused(model, path)
    for at in [*range(48), *(rng.randrange(len(data)) for _ in range(300))]:
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
        refused(model, path)
    path.write_bytes(data + b"\0")
    assert "incomplete" in refused(model, path)
    path.write_bytes(data)
    assert model.load_session(path) == {"x": "y" * 100}


def with_header(data: bytes, **changes: Any) -> bytes:
    """The file with values of its header changed, and checksums that fit."""
    blocks = BlockReader(io.BytesIO(data), "file")
    contents = {part: blocks.read_all() for part in blocks.parts()}
    out = io.BytesIO()
    writer = BlockWriter(out, {**blocks.header, **changes}, list(contents))
    for content in contents.values():
        writer.write(memoryview(content))
        writer.end_part()
    return out.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": 3},
        {"prompt": {"n_tokens": -1, "query_span": None, "protect": [], "recent": []}},
        {"prompt": {"n_tokens": 9, "query_span": [0], "protect": [], "recent": []}},
        {"prompt": {"n_tokens": 9, "query_span": None, "protect": [10], "recent": [True]}},
        {"state": {"seed": 7, "drawn": {"bit_generator": "PCG64", "state": {"state": -1, "inc": "x"}}}},
        {"state": {"seed": 7, "drawn": None}},
        {"schedule": {"points": 3}},
        {"schedule": []},
        {"build": None, "weights_id": None},
        {"byte_order": "big"},
    ],
)
def test_wrong_values_under_right_checksums_are_refused(changes: dict[str, Any], target: str, tmp_path: Path) -> None:
    path = tmp_path / "session"
    with LazyModel(target, n_threads=1, n_ctx=256, keep=POINTS, seed=7) as model:
        model.eval(list(range(3, 60)))
        model.save_session(path)
        assert model.load_session(path) is None
        path.write_bytes(with_header(path.read_bytes(), **changes))
        model.eval([5])
        refused(model, path)


# ---- saving --------------------------------------------------------------------------------------------------------


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(model: LazyModel, tmp_path: Path) -> None:
    path = tmp_path / "session"
    model.save_session(path)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(TypeError):
        model.save_session(path, extra=object())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))  # as a full disk: writing fails in the middle
    try:
        with pytest.raises(OSError, match="still there"):
            model.save_session(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == ["session"] and path.read_bytes() == before


def test_only_a_session_is_replaced(model: LazyModel, tmp_path: Path) -> None:
    document = tmp_path / "report.txt"
    document.write_text("important", encoding="utf-8")
    with pytest.raises(FileExistsError):
        model.save_session(document)
    assert document.read_text(encoding="utf-8") == "important"
    with pytest.raises(FileNotFoundError):
        model.save_session(tmp_path / "missing" / "session")
    with pytest.raises(IsADirectoryError):
        model.save_session(tmp_path)
    for wrong in (3, None, b"path"):
        with pytest.raises(TypeError):
            model.save_session(wrong)  # type: ignore[arg-type]


def test_a_kill_at_any_point_of_a_save_leaves_a_whole_file(target: str, small: str, tmp_path: Path) -> None:
    session, options = str(tmp_path / "session"), options_of("points", small)
    rng, one = random.Random(int(os.environ.get("LAZYGGUF_KILL_SEED", "1"))), ["ask", [DOCUMENT]]
    first, _ = run(target, options, one, ["save", session])
    with LazyModel(target, n_threads=1, n_ubatch=32, n_ctx=1024, keep=POINTS) as model:
        for _ in range(int(os.environ.get("LAZYGGUF_KILLS", "8"))):
            steps = command(target, options, [["load", session], ["saves", session]])
            with subprocess.Popen(steps, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()  # loaded
                process.stdout.readline()  # and saved once
                time.sleep(rng.random() * 0.05)
                process.kill()
            model.load_session(session)
            assert model.n_tokens == first[2][1]
    run(target, options, ["load", session], ["save", session])
    assert os.listdir(tmp_path) == ["session"]  # what the killed ones left is gone


# ---- as llama_cpp has it -------------------------------------------------------------------------------------------


def test_a_state_brings_back_what_the_model_held(model: LazyModel) -> None:
    before, state = held(model), model.save_state()
    assert state.n_tokens == 88 and state.input_ids.tolist() == before[0]
    assert state.scores.shape == (1, model.n_vocab()) and state.llama_state_size == len(state.llama_state)
    model.reset()
    model.eval([7, 8, 9])
    model.load_state(state)
    assert held(model) == before
    with pytest.raises(TypeError, match="what save_state gave"):
        model.load_state(b"bytes")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [LlamaRAMCache, LlamaDiskCache])
@pytest.mark.parametrize("stream", [False, True])
def test_completions_begin_from_the_nearest_state_of_a_cache(
    kind: Any, stream: bool, target: str, tmp_path: Path
) -> None:
    cache = kind() if kind is LlamaRAMCache else kind(str(tmp_path))
    one, other = list(range(3, 80)), list(range(80, 120))
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 3, "stream": stream}

    def complete(model: LazyModel, ids: list[int]) -> str:
        result: Any = model.create_completion(ids, **options)
        return "".join(chunk["choices"][0]["text"] for chunk in (result if stream else [result]))

    with LazyModel(target, n_threads=1, keep="off", n_ctx=256) as model:
        model.set_cache(cache)
        said = complete(model, one)
        complete(model, other)
        assert complete(model, one) == said
        assert model.stats.n_reused >= len(one) - 1
        model.set_cache(None)
        complete(model, other)
        assert model.stats.n_reused == 0


# ---- real models ---------------------------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.parametrize("which", ["smollm2_path", "qwen_path"])
def test_a_real_models_answers_after_a_restart_are_those_without_one(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, session = str(request.getfixturevalue(which)), str(tmp_path / "session")
    document = (TEXT + "The number of the house is 4711. ") * 6 + "\n\nWhat is the number of the house?"
    one, more = ["ask", [document]], ["ask", [document, "4711", "Who sat on the mat?"]]
    options = {"n_threads": 1, "n_ctx": 2048}
    _, _, again, second = run(path, options, one, ["save", session], one, more)
    assert run(path, options, ["load", session], one, more)[1:] == [again, second]
    assert run(path, options, ["load", session], more)[1:] == [second]
    assert np.prod(again[1][2]) > 0
