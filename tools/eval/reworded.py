"""The generated tasks in other words: what was chosen with the tasks' own wordings is asked again with these.

Owns the other wordings. A schedule can fit the sentences that it was chosen with, not the task; no calibration and no
default was made with these.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .parts import Parts

Rules = tuple[tuple[str, str], ...]  # patterns and what takes their place, in this order

_NEEDLES: Rules = (
    (r"One of the special magic numbers for (\S+) is: (\d+)\.", r"Vault \1 opens with the combination \2."),
    (r"(?s)^(A|Some) special magic numbers? .*afterwards\.\n$", "This text mentions vaults here and there.\n\n"),
    (r"What is the special magic number for (.+) mentioned in the .*", r"With which combination does vault \1 open?"),
    (
        r"What are all the special magic numbers for (.+) mentioned in the .*",
        r"With which combinations does vault \1 open? Give every one of them.",
    ),
    (r"The special magic numbers? for (.+) mentioned .* (is|are)$", r"Vault \1 opens with"),
)
_CHAINS: Rules = (
    (r"VAR (\w+) = (\d+)", r"Box \1 holds \2."),
    (r"VAR (\w+) = VAR (\w+) ?", r"Box \1 holds the same as box \2."),
    (r"The grass is green.*?back again\.", "A bell rings. Snow lies on the hill. Somebody waves. The train is late."),
    (r"Memorize and track the chain.*?text\.\n\n", "Keep in mind what each box holds in the lines that follow.\n\n"),
    (r"Question: Find all variables .* value (\d+) in .*?above\.", r"Task: List all boxes that hold \1, by the lines."),
    (r"Answer: According .*?, (\d+) variables .*? value (\d+), they are: ", r"Reply: By the lines, \1 boxes hold \2: "),
)
_PASSAGES: Rules = (
    (r" was born in ", " spent all childhood in "),
    (r"In which city was (.+) born\?", r"Where did \1 spend all childhood?"),
    (r" worked as a ", " earned a living as a "),
    (r"What did (.+) work as\?", r"As what did \1 earn a living?"),
    (r" played the (\w+) every evening\.", r" practised the \1 after supper."),
    (r"Which instrument did (.+) play\?", r"What did \1 practise after supper?"),
    (r" had a dog called ", " kept a hound named "),
    (r"What was the name of (.+)'s dog\?", r"How was the hound named that \1 kept?"),
    (r" moved into the lighthouse in ", " opened the inn in "),
    (r"In which year did (.+) move into the lighthouse\?", r"When did \1 open the inn?"),
    (r" paid (\d+) crowns for the house\.", r" sold the mill for \1 florins."),
    (r"How many crowns did (.+) pay for the house\?", r"For how many florins did \1 sell the mill?"),
    (r" designed the bridge of ", " restored the church of "),
    (r"Who designed the bridge of ", "Who restored the church of "),
    (r"Document (\d+):\n", r"Article \1\n"),
    (
        r"(?s)Answer the question based .*? other words\.",
        "Reply to what is asked about the articles in a word or two.",
    ),
    (r"The following are given documents\.", "Here are the articles."),
    (r"^Question: ", ""),
    (r"^Answer:$", "Reply:"),
)
REWORDED: dict[str, Rules] = {
    "niah_single": _NEEDLES,
    "niah_multikey": _NEEDLES,
    "niah_multivalue": _NEEDLES,
    "vt": _CHAINS,
    "qa": _PASSAGES,
}


def reworded(task: str, parts: Parts) -> Parts:
    """The parts of a task of ``REWORDED`` in its other words; what answers stays."""

    def say(text: str) -> str:
        for pattern, other in REWORDED[task]:
            text = re.sub(pattern, other, text)
        return text

    return replace(
        parts,
        instruction=say(parts.instruction),
        document=say(parts.document),
        question=say(parts.question),
        answer_prefix=say(parts.answer_prefix),
    )
