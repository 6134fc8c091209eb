"""Layers on other machines, over RPC: two servers on loopback, and what happens when one goes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu.compare import CONVERSATION, PlacedSession, assert_same_steps, close, logits_of, open_session, prompt
from gpu.processes import RpcServer, free_port, run_python
from reference import nmse
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel
from lazygguf._ffi import NativeModel, NativeSession, Placement, list_devices
from lazygguf.errors import Cancelled, LazyError

pytestmark = pytest.mark.gpu

Write = Callable[[TinyConfig], tuple[Path, dict[str, np.ndarray]]]

LAZY = KeepSchedule.paper("1:0.5,3:0.25")
SCHEDULES = {"dense": None, "lazy": LAZY}


def remote(servers: list[str]) -> dict[str, Any]:
    """The servers' devices and no local GPU."""
    names = [device.name for device in list_devices(servers) if device.description in servers]
    return {"devices": ",".join(names), "rpc_servers": servers}


@pytest.mark.parametrize("weight_type", ["F32", "Q4_0"])
@pytest.mark.parametrize(("n_gpu_layers", "by"), [(-1, "work"), (4, "work"), (4, "last"), (1, "last")])
@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_model_over_two_servers_and_this_machine_answers_as_here_alone(
    servers: list[str],
    tiny_model: Write,
    opened: Callable[..., PlacedSession],
    name: str,
    n_gpu_layers: int,
    by: str,
    weight_type: str,
) -> None:
    path, _ = tiny_model(TinyConfig(weight_type=weight_type, seed=3))
    far = opened(path, SCHEDULES[name], n_gpu_layers, by=by, **remote(servers))
    places = [server in far._model.desc for server in servers] + ["on CPU" in far._model.desc]
    assert places == [True, n_gpu_layers != 1, n_gpu_layers >= 0]
    compared = assert_same_steps(opened(path, SCHEDULES[name]), far)
    if weight_type == "F32":  # else this machine's repacked weights sum in another order than the servers' plain ones
        assert compared.n_same == compared.n_evals and (compared.n_revived > 0) == (name == "lazy")


def test_pruned_rows_do_not_cross_the_network(
    servers: list[str], tiny_model: Write, opened: Callable[..., PlacedSession]
) -> None:
    config = TinyConfig(n_layer=8, seed=3)
    path, _ = tiny_model(config)
    moved = {}
    for name, schedule in (("dense", None), ("lazy", KeepSchedule.paper("1:0.3,3:0.1"))):
        session = opened(path, schedule, -1, **remote(servers))
        session.eval(prompt(400))
        stats = session.stats()
        moved[name] = stats.h2d_bytes + stats.d2h_bytes
    assert moved["lazy"] <= 0.55 * moved["dense"]


def test_a_second_session_that_frees_memory_there_does_not_disturb_the_first(
    servers: list[str], tiny_model: Write
) -> None:
    # a server forgets the graph it was to run again when any of its buffers is freed
    path, _ = tiny_model(TinyConfig(n_layer=4, seed=3))
    model = NativeModel(path, -1, placement=Placement(**remote(servers[:1])))
    first, alone = NativeSession(model, n_ctx=512), NativeSession(NativeModel(path), n_ctx=512)
    for session in (first, alone):
        session.eval(prompt(50))
    for step in range(6):
        other = NativeSession(model, n_ctx=512)
        if step % 2:
            other.eval(prompt(20))
        for session in (first, alone):
            session.eval([step])
        other.close()
        assert nmse(logits_of(first), logits_of(alone)) <= 1e-6
    close(first, alone)


def test_a_session_goes_on_while_another_thread_frees_memory_there(servers: list[str], tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(n_layer=4, seed=3))
    placement = Placement(**remote(servers[:1]))
    model = NativeModel(path, -1, placement=placement)
    far, here = NativeSession(model, n_ctx=512), NativeSession(NativeModel(path), n_ctx=512)
    done = threading.Event()

    def open_and_close() -> None:
        while not done.is_set():
            other = NativeModel(path, -1, placement=placement)
            session = NativeSession(other, n_ctx=64)
            session.eval([5])
            session.close()
            other.close()

    thread = threading.Thread(target=open_and_close)
    thread.start()
    try:
        for step in range(60):
            for session in (far, here):
                session.eval([step])
            assert nmse(logits_of(far), logits_of(here)) <= 1e-6
    finally:
        done.set()
        thread.join()
    close(far, here)


def test_a_step_over_servers_can_be_cancelled(
    servers: list[str], tiny_model: Write, opened: Callable[..., PlacedSession]
) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    far, here = opened(path, LAZY, -1, **remote(servers)), opened(path, LAZY)
    far.eval(prompt(50))
    with pytest.raises(Cancelled):
        far.eval(prompt(200, seed=1), progress=lambda n_done, n_total: far.cancel())
    here.eval(prompt(50))
    assert far.n_tokens == 50
    assert_same_steps(here, far, [("eval", 30), ("eval", 1)])


def test_lazy_model_takes_servers_and_closes_its_connections(servers: list[str], tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(n_layer=4, seed=3))
    texts = []
    placements: list[dict[str, Any]] = [{}, {"n_gpu_layers": "all", "rpc_servers": ",".join(servers)}, {}]
    for placed in placements:
        if placed:
            placed["device"] = remote(servers)["devices"].split(",")
        with LazyModel(path, n_ctx=256, keep="off", n_threads=1, weights="as-is", **placed) as model:
            answer = model.create_completion(prompt(60), max_tokens=5, temperature=0)
            texts.append(answer["choices"][0]["text"])
    assert texts[0] == texts[1] == texts[2]
    list_devices(servers)  # both are free again


def test_an_absent_server_is_named(rpc: None, tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig())
    with pytest.raises(LazyError, match=r"RPC server 127\.0\.0\.1:1: Connection refused"):
        LazyModel(path, n_gpu_layers="all", rpc_servers="127.0.0.1:1")


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_server_that_ends_between_two_steps_is_an_error_that_names_it(
    mortal_server: RpcServer, tiny_model: Write, name: str
) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    session = open_session(path, SCHEDULES[name], -1, **remote([mortal_server.endpoint]))
    session.eval(prompt(50))
    mortal_server.kill()
    for again in range(2):
        with pytest.raises(LazyError, match=f"the RPC server {mortal_server.endpoint} has closed the connection"):
            session.eval([again])
    assert session.n_tokens == 50
    with pytest.raises(LazyError, match=mortal_server.endpoint):
        session.reset()
    close(session)  # frees what is here; ggml would end the process if the rest were freed
    with pytest.raises(LazyError, match="and then this program"):
        open_session(path, None, -1, rpc_servers=[mortal_server.endpoint])


_DIES_INSIDE = """
import os, signal, sys
from lazygguf._ffi import NativeModel, NativeSession, Placement
path, endpoint, pid = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = NativeModel(path, -1, placement=Placement(rpc_servers=[endpoint]))
session = NativeSession(model, n_ctx=512, n_ubatch=16)
def progress(done, total):
    if done > 100:
        os.kill(pid, signal.SIGSTOP)  # it takes no more work, and its end comes while we wait for it
        if os.fork() == 0:
            import time
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
session.eval([5] * 400, progress=progress)
"""


def test_a_server_that_ends_inside_a_step_is_named_before_ggml_ends_the_process(
    mortal_server: RpcServer, tiny_model: Write
) -> None:
    path, _ = tiny_model(TinyConfig(n_layer=4, seed=3))
    args = str(path), mortal_server.endpoint, str(mortal_server.pid)
    done = run_python("-c", _DIES_INSIDE, *args, GGML_NO_BACKTRACE="1")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "RPC" in line]
    ours = f"lazygguf: error: the RPC server {mortal_server.endpoint} has closed the connection"
    assert said[0].startswith(ours), done.stderr[-2000:]


def test_a_server_listens_on_this_machine_alone_unless_told_otherwise(rpc: None) -> None:
    for options, is_warned in (((), False), (("--host", "0.0.0.0"), True)):
        server = RpcServer("--device", "CPU", *options)
        try:
            assert ("no passwords and no encryption" in server.said()) == is_warned
        finally:
            server.kill()


def test_a_taken_port_and_an_unknown_device_are_one_line(rpc: None, mortal_server: RpcServer) -> None:
    for options, expected in (
        (("--port", str(mortal_server.port)), f"cannot listen on 127.0.0.1:{mortal_server.port}: Address already"),
        (("--port", str(free_port()), "--device", "Nothing0"), "device is 'Nothing0', expected one of"),
    ):
        done = run_python("-m", "lazygguf", "rpc-server", *options)
        errors = [line for line in done.stderr.splitlines() if line.startswith("lazygguf: error:")]
        assert done.returncode == 1 and len(errors) == 1 and expected in errors[0], done.stderr


def test_a_later_turn_goes_on_over_servers_as_here(
    servers: list[str], tiny_model: Write, opened: Callable[..., PlacedSession]
) -> None:
    path, _ = tiny_model(TinyConfig(arch="qwen2", seed=5))
    for kinds in ({}, {"type_k": "f32", "type_v": "f32"}):
        here, far = opened(path, LAZY, **kinds), opened(path, LAZY, -1, **remote(servers), **kinds)
        compared = assert_same_steps(here, far, [*CONVERSATION, ("eval", 60), ("eval", 1)])
        assert compared.n_same == compared.n_evals and compared.n_revived > 0
