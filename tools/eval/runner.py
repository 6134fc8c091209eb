"""Asks every question of every method, in turn, and keeps the answers.

Owns the order, what is skipped, what is noted of an answer, and the file that answers are found in by the next run: one
JSON line each, there for good once written. Times are comparable because a question is asked of all methods before the
next one; who begins changes from question to question.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from lazygguf import __version__
from lazygguf.generate.loop import Logits

from .engine import Answer
from .kld import compare
from .methods import DENSE, Method
from .prompts import Question, Source, TaskPrompt

# What makes two answers the same. Lines of other settings stay in the file and match no question of a run.
KEY_FIELDS = ("method_id", "setting_id", "task", "length", "index", "prompt_hash")

Record = dict[str, Any]
Key = tuple[Any, ...]
Progress = Callable[[int, int], Any]


def key_of(record: Mapping[str, Any]) -> Key:
    """What an answer is the answer to."""
    return tuple(record[field] for field in KEY_FIELDS)


class AnswerFile:
    """The answers of one model in a folder.

    Args:
        folder: made when it is missing; None keeps the answers in memory only.
        identity: of the model; each has its own file.

    Raises:
        OSError: the folder or file cannot be used.
        ValueError: a line, not the last, is no answer.
    """

    def __init__(self, folder: Optional[Path], identity: str) -> None:
        self.path = None if folder is None else folder / f"{identity}.jsonl"
        self._known: dict[Key, Record] = {}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._load(self.path)

    def find(self, key: Key) -> Optional[Record]:
        """The answer, if it is there."""
        return self._known.get(key)

    def add(self, record: Record) -> None:
        """Writes an answer; when this returns, it is in the file."""
        self._known[key_of(record)] = record
        if self.path is not None:
            line = json.dumps(record, ensure_ascii=False) + "\n"
            with open(self.path, "a", encoding="utf-8", errors="replace") as file:
                file.write(line)

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # a run that was killed while it wrote
            with open(path, "r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            record = _parse(line)
            if record is None:
                raise ValueError(
                    f"{path}: line {number} is no answer of lazygguf eval; give another --out, or remove it"
                )
            self._known[key_of(record)] = record


def _parse(line: bytes) -> Optional[Record]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or any(field not in record for field in KEY_FIELDS):
        return None
    return record


class MethodReader(Protocol):
    """What the runner needs of a reader (``engine.Reader``)."""

    method: Method

    def answer(self, prompt: TaskPrompt) -> Answer: ...
    def follow(self, prompt: TaskPrompt, continuation: tuple[int, ...]) -> tuple[list[Logits], Answer]: ...
    def warm_up(self, prompt: TaskPrompt) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What a run is made of."""

    sources: Sequence[Source]  # the tasks, each at one length
    readers: Sequence[MethodReader]  # the methods
    settings: Mapping[str, Any]  # of the engine; answers of other settings are not taken for this run's
    seed: int  # noted with every answer

    @property
    def setting_id(self) -> str:
        content = json.dumps([dict(self.settings), __version__], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def n_answers(self) -> int:
        return len(self.readers) * sum(source.n_questions for source in self.sources)

    def questions(self) -> Iterator[Question]:
        """All questions: the first of every task, then the second, so that an early end leaves all tasks begun."""
        for index in range(max((source.n_questions for source in self.sources), default=0)):
            for source in self.sources:
                if index < source.n_questions:
                    yield source.question(index)


class Run:
    """One run over a plan.

    Attributes:
        records: the answers of this plan so far, old ones included, in the plan's order.
    """

    def __init__(self, plan: Plan, answers: AnswerFile) -> None:
        self.plan = plan
        self.records: list[Record] = []
        self._answers = answers
        self._turn = f"{time.time():.0f}"  # times are compared within one run of the program only
        self._is_warm = False
        self._base: Optional[tuple[str, list[Logits]]] = None  # of a kld prompt: its digest and the dense logits

    def all(self, progress: Progress) -> None:
        """Asks what has no answer yet."""
        n_done, n_total = 0, self.plan.n_answers
        progress(0, n_total)
        for question in self.plan.questions():
            for reader in self._in_turn(question):
                record = self._answers.find(key_of(self._identity(question, reader.method)))
                if record is None:
                    record = self._ask(question, reader)
                    self._answers.add(record)
                self.records.append(record)
                n_done += 1
                progress(n_done, n_total)

    def _in_turn(self, question: Question) -> Sequence[MethodReader]:
        readers = self.plan.readers
        if question.continuation is not None:  # dense first: the others are compared with it
            return readers
        shift = question.index % len(readers)
        return [*readers[shift:], *readers[:shift]]

    def _ask(self, question: Question, reader: MethodReader) -> Record:
        if not self._is_warm:
            for each in self.plan.readers:
                each.warm_up(question.prompt)
            self._is_warm = True
        if question.continuation is None:
            answer = reader.answer(question.prompt)
            return self._record(question, reader.method, answer, question.score(answer.pred))
        return self._diverge(question, question.continuation, reader)

    def _diverge(self, question: Question, continuation: tuple[int, ...], reader: MethodReader) -> Record:
        digest = question.prompt.digest
        if reader.method.kind == DENSE:
            logits, answer = reader.follow(question.prompt, continuation)
            self._base = digest, logits
        else:
            if self._base is None or self._base[0] != digest:  # the dense answer is an old one
                dense = next(each for each in self.plan.readers if each.method.kind == DENSE)
                self._base = digest, dense.follow(question.prompt, continuation)[0]
            logits, answer = reader.follow(question.prompt, continuation)
        divergence = compare(self._base[1], logits, continuation)
        mean = sum(divergence.kld) / len(divergence.kld)
        return {**self._record(question, reader.method, answer, mean), "divergence": asdict(divergence)}

    def _identity(self, question: Question, method: Method) -> Record:
        return {
            "method_id": method.digest,
            "setting_id": self.plan.setting_id,
            "task": question.task,
            "length": question.length,
            "index": question.index,
            "prompt_hash": question.prompt.digest,
        }

    def _record(self, question: Question, method: Method, answer: Answer, score: float) -> Record:
        return {
            **self._identity(question, method),
            "method": method.label,
            "schedule": None if method.schedule is None else method.schedule.to_dict(),
            "seed": self.plan.seed,
            "depths": list(question.depths),
            "n_prompt": len(question.prompt.ids),
            "references": list(question.references),
            "score": score,
            **{key: round(v, 6) if isinstance(v, float) else v for key, v in asdict(answer).items()},
            **_held(question, answer),
            "turn": self._turn,
            **question.extra,
        }


def _held(question: Question, answer: Answer) -> Record:
    """The share of the sentences that answer which stand whole in one of the answer's sources."""
    if answer.sources is None or not question.evidence:
        return {}
    held = [any(sentence in source for source in answer.sources) for sentence in question.evidence]
    return {"evidence_held": sum(held) / len(held)}
