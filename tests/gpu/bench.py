"""Times and bytes of a prompt on devices: placements beside each other, or servers beside one process.

    python tests/gpu/bench.py placement -m MODEL.gguf -k 10:0.3,13:0.1 -ngl 8 -ngl 12 [--device Vulkan0]
    python tests/gpu/bench.py rpc -m MODEL.gguf -k 10:0.3,13:0.1

``placement``: the same number of layers on the GPU, those that see the most tokens and the last ones. ``rpc``: the
model over two servers that are started here on loopback, beside the same threads in this process alone, dense and
lazy. Contenders take turns within each round; the table shows medians. For developers; not a test.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpu.processes import RpcServer
from lazygguf.tools.bench.text import text_ids

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel, NativeSession, Placement, list_devices
from lazygguf.text.tokenizer import Tokenizer

MIB = 1024 * 1024


@dataclass
class Contender:
    """A model on its devices, and what was measured of it."""

    name: str
    session: NativeSession
    prefill_s: list[float]
    token_s: list[float]
    moved: tuple[int, int] = (0, 0)  # in the prompt, in a decoded token

    def read(self, ids: list[int], n_decode: int) -> None:
        """One round."""
        self.session.reset()
        begin = time.perf_counter()
        self.session.eval(ids)
        self.prefill_s.append(time.perf_counter() - begin)
        prompt = _moved(self.session)
        begin = time.perf_counter()
        for token in range(n_decode):
            self.session.eval([100 + token])
        self.token_s.append((time.perf_counter() - begin) / n_decode)
        self.moved = prompt, _moved(self.session)


def _moved(session: NativeSession) -> int:
    stats = session.stats()
    return stats.h2d_bytes + stats.d2h_bytes


@contextmanager
def opened(args: argparse.Namespace, name: str, lazy: bool, n_gpu_layers: int, **placed: Any) -> Iterator[Contender]:
    """A contender on the devices that ``placed`` names."""
    schedule: Optional[KeepSchedule] = KeepSchedule.parse(args.keep, min_prompt=0) if lazy else None
    model = NativeModel(args.model, n_gpu_layers, placement=Placement(schedule=schedule, **placed))
    print(f"{name}: {model.desc}", file=sys.stderr)
    session = NativeSession(model, n_ctx=args.n_prompt + 64, n_threads=args.threads, schedule=schedule)
    yield Contender(name, session, [], [])
    session.close()
    model.close()


def placements(args: argparse.Namespace, stack: ExitStack) -> list[Contender]:
    """Work and last, at each number of layers."""
    return [
        stack.enter_context(opened(args, f"{n} layers, {by}", True, n, by=by, devices=args.device))
        for n in args.n_gpu_layers
        for by in ("last", "work")
    ]


def splits(args: argparse.Namespace, stack: ExitStack) -> list[Contender]:
    """Two servers and this process alone, dense and lazy."""
    servers = [RpcServer("--device", "CPU", threads=args.threads) for _ in range(2)]
    for server in servers:
        stack.callback(server.kill)
    endpoints = [server.endpoint for server in servers]
    names = ",".join(device.name for device in list_devices(endpoints) if device.type == "RPC")
    contenders = []
    for lazy in (False, True):
        kind = "lazy" if lazy else "dense"
        contenders.append(stack.enter_context(opened(args, f"{kind}, here", lazy, 0)))
        placed = {"devices": names, "rpc_servers": endpoints}
        contenders.append(stack.enter_context(opened(args, f"{kind}, two servers", lazy, -1, **placed)))
    return contenders


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description="placements and RPC, see the head of this file")
    parser.add_argument("what", choices=("placement", "rpc"))
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-k", "--keep", default="10:0.3,13:0.1")
    parser.add_argument("-p", "--n-prompt", type=int, default=1000)
    parser.add_argument("-n", "--n-decode", type=int, default=8)
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("-ngl", "--n-gpu-layers", type=int, action="append")
    parser.add_argument("--device")
    args = parser.parse_args()
    args.n_gpu_layers = args.n_gpu_layers or [8]
    tokenizer = Tokenizer(args.model)
    ids = text_ids(tokenizer, args.n_prompt, None)
    tokenizer.close()
    with ExitStack() as stack:
        contenders = (placements if args.what == "placement" else splits)(args, stack)
        for _ in range(args.rounds):
            for contender in contenders:
                contender.read(ids, args.n_decode)
        print("| | prefill s | s/token | MiB moved in the prompt | KiB a token |\n|---|---|---|---|---|")
        for c in contenders:
            times = f"{statistics.median(c.prefill_s):.3f} | {statistics.median(c.token_s):.4f}"
            print(f"| {c.name} | {times} | {c.moved[0] / MIB:.2f} | {c.moved[1] / 1024:.1f} |")


if __name__ == "__main__":
    main()
