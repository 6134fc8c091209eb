"""``lazygguf chat`` on the fake model as a program, for tests that need a process: a terminal, streams, signals.

    python chat_program.py ANSWER [options of chat]

ANSWER is JSON: {"pieces": [...]} is what the model says, "{asked}" in it the question in JSON; "go": a file that must
appear before the last piece is said; "interrupts": Ctrl-Cs that the process sends itself, by moment: "answer", "del"
(in a __del__), "exit" (while the model is closed), "end" (while Python takes itself down).
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fake_chat import FakeModel

import lazygguf.cli.chat
from lazygguf.cli.main import main

TOLD: dict[str, Any] = {}


def interrupt(moment: str) -> None:
    for _ in range(TOLD.get("interrupts", {}).get(moment, 0)):
        os.kill(os.getpid(), signal.SIGINT)


class Dropped:
    """Interrupted where Python cannot raise."""

    def __del__(self) -> None:
        interrupt("del")
        TOLD.get("interrupts", {}).pop("del", None)


class ProgramModel(FakeModel):
    """Says what it is told, when it is told."""

    def _chunks(self) -> Iterator[dict[str, Any]]:
        pieces = [piece.replace("{asked}", json.dumps(self.asked[-1][-1]["content"])) for piece in TOLD["pieces"]]
        for i, chunk in enumerate(self._said(pieces)):
            if i == len(pieces) and "go" in TOLD:
                while not Path(TOLD["go"]).exists():
                    time.sleep(0.01)
            interrupt("answer")
            if "del" in TOLD.get("interrupts", {}):
                Dropped()
                time.sleep(60)  # the interrupt comes again
            yield chunk

    def _said(self, pieces: list[str]) -> Iterator[dict[str, Any]]:
        FakeModel.answer = pieces
        return super()._chunks()

    def __exit__(self, *exc: object) -> None:
        interrupt("exit")
        print("closed", file=sys.stderr)


if __name__ == "__main__":
    TOLD.update(json.loads(sys.argv.pop(1)))
    atexit.register(interrupt, "end")
    setattr(lazygguf.cli.chat, "LazyModel", ProgramModel)  # noqa: B010
    sys.argv[1:1] = ["chat", "-m", "m.gguf"]
    sys.exit(main())
