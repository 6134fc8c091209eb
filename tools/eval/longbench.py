"""LongBench (arXiv:2308.14508) from files that the user has: 21 tasks, and the evenly spread LongBench-E.

Owns the tasks, what is truncated, what is wrapped in a chat template, and how an answer is cut and scored: as
LongBench's own scripts do it, quirks included. The prompts are in ``longbench_prompts.json``, word by word. The
libraries of the metrics (``rouge``, ``jieba``, ``rapidfuzz``) are the extra ``[eval]`` and are imported when they are
used.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable

from .prompts import Prompter, Question, Wording

PROMPTS = Path(__file__).resolve().parent / "longbench_prompts.json"
N_SPARE = 600  # tokens of the context left for answer and template by default, as LongBench leaves (4096 -> 3500)
FIRST_LINE = ("trec", "triviaqa", "samsum", "lsht")  # only the first line of the answer counts
NOT_CHAT = ("trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p")
ENDS_AT_LINE = ("samsum",)  # the model would go on with dialogues of its own
E_SUFFIX = "_e"
_KEYS = {"input": str, "context": str, "answers": list, "length": int}

_ZH_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃"
    "》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)

Metric = Callable[[str, str, Sequence[str]], float]


def require_extra(extra: str, modules: Sequence[str]) -> None:
    """Raises ImportError in one line when a library of an extra is not installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(f"{', '.join(missing)} is not installed: pip install 'lazygguf[{extra}]'")


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous spaces."""
    bare = "".join(ch for ch in text.lower() if ch not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def normalize_zh_answer(text: str) -> str:
    """Lower case, without punctuation and spaces."""
    dropped = set(string.punctuation + _ZH_PUNCTUATION)
    return "".join("".join(ch for ch in text.lower() if ch not in dropped).split())


def token_f1(pred: Sequence[str], truth: Sequence[str]) -> float:
    """F1 of two multisets of tokens."""
    n_same = sum((Counter(pred) & Counter(truth)).values())
    if n_same == 0:
        return 0.0
    precision, recall = n_same / len(pred), n_same / len(truth)
    return 2 * precision * recall / (precision + recall)


def f1(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """F1 of the words of the normalised answers."""
    return token_f1(normalize_answer(pred).split(), normalize_answer(truth).split())


def f1_zh(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """F1 of the words that jieba finds."""
    tokens = [[normalize_zh_answer(token) for token in _zh_words(text)] for text in (pred, truth)]
    return token_f1(*[[token for token in side if token] for side in tokens])


def rouge_l(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """ROUGE-L F of the ``rouge`` package; 0 where it refuses a text, as it does with an empty one."""
    try:
        scores: Any = import_module("rouge").Rouge().get_scores([pred], [truth], avg=True)
    except (ValueError, RecursionError):
        return 0.0
    return float(scores["rouge-l"]["f"])


def rouge_l_zh(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """ROUGE-L F of the words that jieba finds."""
    return rouge_l(" ".join(_zh_words(pred)), " ".join(_zh_words(truth)))


def classification(pred: str, truth: str, classes: Sequence[str]) -> float:
    """1 / (classes named in the answer) when the right one is among them, else 0.

    Classes that are a part of the right one's name are dropped first. LongBench drops them from the list it walks, so
    that the one after a dropped one is skipped; its published numbers have that, and so has this.
    """
    named = [name for name in classes if name in pred]
    for name in named:
        if name in truth and name != truth:
            named.remove(name)  # the quirk
    return 1.0 / len(named) if truth in named else 0.0


def retrieval(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """Share of the numbers in the answer that are the N of "Paragraph N"."""
    return _share_of_numbers(pred, _paragraph(r"Paragraph (\d+)", truth))


def retrieval_zh(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """Share of the numbers in the answer that are the N of "段落N"."""
    return _share_of_numbers(pred, _paragraph(r"段落(\d+)", truth))


def count(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """Share of the numbers in the answer that are the right one."""
    return _share_of_numbers(pred, truth)


def code_similarity(pred: str, truth: str, classes: Sequence[str] = ()) -> float:
    """Edit similarity of the first line that is neither comment nor fence, rounded to 1/100 as fuzzywuzzy does."""
    lines = pred.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    if not line or not truth:
        return float(line == truth)
    similarity: float = import_module("rapidfuzz.fuzz").ratio(line, truth)
    return round(similarity) / 100


def _zh_words(text: str) -> list[str]:
    return list(import_module("jieba").cut(text, cut_all=False))


def _paragraph(pattern: str, truth: str) -> str:
    found = re.findall(pattern, truth)
    if not found:
        raise ValueError(f"answer is {truth!r}, expected a number after the word of {pattern!r}")
    return str(found[0])


def _share_of_numbers(pred: str, truth: str) -> float:
    numbers = re.findall(r"\d+", pred)
    return sum(number == truth for number in numbers) / len(numbers) if numbers else 0.0


@dataclass(frozen=True)
class LongBenchTask:
    """A task: its metric and the most tokens of an answer."""

    metric: Metric
    max_tokens: int


LONGBENCH = {
    "narrativeqa": LongBenchTask(f1, 128),
    "qasper": LongBenchTask(f1, 128),
    "multifieldqa_en": LongBenchTask(f1, 64),
    "multifieldqa_zh": LongBenchTask(f1_zh, 64),
    "hotpotqa": LongBenchTask(f1, 32),
    "2wikimqa": LongBenchTask(f1, 32),
    "musique": LongBenchTask(f1, 32),
    "dureader": LongBenchTask(rouge_l_zh, 128),
    "gov_report": LongBenchTask(rouge_l, 512),
    "qmsum": LongBenchTask(rouge_l, 512),
    "multi_news": LongBenchTask(rouge_l, 512),
    "vcsum": LongBenchTask(rouge_l_zh, 512),
    "trec": LongBenchTask(classification, 64),
    "triviaqa": LongBenchTask(f1, 32),
    "samsum": LongBenchTask(rouge_l, 128),
    "lsht": LongBenchTask(classification, 64),
    "passage_count": LongBenchTask(count, 32),
    "passage_retrieval_en": LongBenchTask(retrieval, 32),
    "passage_retrieval_zh": LongBenchTask(retrieval_zh, 32),
    "lcc": LongBenchTask(code_similarity, 64),
    "repobench-p": LongBenchTask(code_similarity, 64),
}
_SPREAD_EVENLY = (
    *("qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec", "triviaqa"),
    *("samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p"),
)
LONGBENCH_E = tuple(f"{name}{E_SUFFIX}" for name in _SPREAD_EVENLY)
NAMES = (*LONGBENCH, *LONGBENCH_E)
_NEEDED: dict[Metric, tuple[str, ...]] = {
    f1_zh: ("jieba",),
    rouge_l: ("rouge",),
    rouge_l_zh: ("jieba", "rouge"),
    code_similarity: ("rapidfuzz",),
}


def plain_name(task: str) -> str:
    """The task whose prompt, metric and lengths a LongBench-E task has."""
    return task[: -len(E_SUFFIX)] if task in LONGBENCH_E else task


def found_tasks(folder: Path) -> list[str]:
    """The tasks that a folder has files of, LongBench's order.

    Raises:
        NotADirectoryError: no such folder.
        FileNotFoundError: none of the files is there.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"--longbench {folder}: no such folder")
    found = [name for name in NAMES if (folder / f"{name}.jsonl").is_file()]
    if not found:
        raise FileNotFoundError(f"--longbench {folder}: no file of LongBench in it, such as hotpotqa.jsonl")
    return found


def require_metrics(tasks: Sequence[str]) -> None:
    """Raises ImportError when a task's metric needs a library that is not installed."""
    needed = {module for task in tasks for module in _NEEDED.get(LONGBENCH[plain_name(task)].metric, ())}
    require_extra("eval", sorted(needed))


def score(task: str, pred: str, answers: Sequence[str], classes: Sequence[str]) -> float:
    """LongBench's score of an answer, in [0, 1]: the best over the expected ones."""
    name = plain_name(task)
    if name in FIRST_LINE:
        pred = pred.lstrip("\n").split("\n")[0]
    return max((LONGBENCH[name].metric(pred, truth, classes) for truth in answers), default=0.0)


@lru_cache(maxsize=1)
def prompt_templates() -> dict[str, str]:
    """LongBench's prompt of each task, with the fields {context} and {input}."""
    templates: dict[str, str] = json.loads(PROMPTS.read_text(encoding="utf-8"))
    return templates


def bucket(task: str, length: int) -> str:
    """The length column of LongBench-E; LongBench has none."""
    if task not in LONGBENCH_E:
        return ""
    return "0-4k" if length < 4000 else "4-8k" if length < 8000 else "8k+"


class LongBenchSource:
    """The first questions of a LongBench file (``prompts.Source``)."""

    def __init__(self, task: str, folder: Path, n_most: int, max_length: int, prompter: Prompter) -> None:
        """Reads the file.

        Args:
            task: its name, which is the file's.
            folder: where the file is.
            n_most: at most so many questions.
            max_length: tokens of a prompt before the chat template; longer ones lose their middle.
            prompter: makes the prompts.

        Raises:
            OSError: the file cannot be read.
            ValueError: a line is no LongBench question.
        """
        self.task, self.max_length = task, max_length
        self._prompter = prompter
        self._objects = _read(folder / f"{task}.jsonl", n_most)

    @property
    def n_questions(self) -> int:
        return len(self._objects)

    def question(self, index: int) -> Question:
        """The question of a line."""
        given, name = self._objects[index], plain_name(self.task)
        answers, classes = [str(answer) for answer in given["answers"]], given.get("all_classes") or []
        wording = Wording(chat=name not in NOT_CHAT, question=asking(name, given))
        ends: dict[str, Any] = {"stops": ("\n",), "min_tokens": 1} if name in ENDS_AT_LINE else {}
        content = self.truncated(prompt_templates()[name].format(**given))
        return Question(
            task=self.task,
            length=bucket(self.task, given["length"]),
            index=index,
            prompt=self._prompter.prompt(content, wording, LONGBENCH[name].max_tokens, **ends),
            references=answers,
            score=partial(score, self.task, answers=answers, classes=classes),
            extra={"all_classes": given.get("all_classes"), "words": given["length"]},
        )

    def truncated(self, content: str) -> str:
        """The content, or its first and last half of ``max_length`` tokens."""
        tokenizer = self._prompter.tokenizer
        ids = tokenizer.tokenize(content.encode("utf-8", "replace"), add_bos=True)
        if len(ids) <= self.max_length:
            return content
        half = self.max_length // 2
        return "".join(tokenizer.detokenize(part).decode("utf-8", "ignore") for part in (ids[:half], ids[-half:]))


def asking(task: str, given: Mapping[str, Any]) -> str:
    """What asks in a prompt: the input, else what the template says after the context.

    LongBench's prompts end in "Answer:", which the search for a chat's last question would take for it.
    """
    question = str(given["input"]).strip()
    return question or prompt_templates()[task].rpartition("{context}")[2].format(**given).strip()


def _read(path: Path, n_most: int) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if len(objects) == n_most:
                break
            if line.strip():
                objects.append(_parse(line, f"{path}: line {number}"))
    if not objects:
        raise ValueError(f"{path}: no question in it")
    return objects


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: no valid JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{where}: a JSON {type(given).__name__}, expected an object")
    for key, kind in _KEYS.items():
        if not isinstance(given.get(key), kind):
            raise ValueError(f"{where}: {key} is {given.get(key)!r:.40}, expected {kind.__name__}")
    return given
