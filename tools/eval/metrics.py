"""How an answer is scored: RULER's string matching, and LongBench's metrics.

Owns the scores of one answer, in [0, 1]. LongBench's numbers are kept as its own scripts give them, quirks included;
their libraries (``rouge``, ``jieba``, ``rapidfuzz``) are the extra ``[eval]`` and are imported when they are used.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Callable

Metric = Callable[[str, str, Sequence[str]], float]

_ZH_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃"
    "》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)


def string_match_all(pred: str, references: Sequence[str]) -> float:
    """RULER: the share of references that the answer contains, upper or lower case."""
    return sum(reference.lower() in pred.lower() for reference in references) / len(references)


def string_match_part(pred: str, references: Sequence[str]) -> float:
    """RULER, question answering: 1 when the answer contains any reference, upper or lower case."""
    return float(any(reference.lower() in pred.lower() for reference in references))


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
