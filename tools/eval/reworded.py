"""The generated tasks in other words: what was chosen with the tasks' own wordings is asked again with these.

Owns the other wordings. A schedule can fit the sentences that it was chosen with, not the task.
"""

from __future__ import annotations

from .aggregation import ChainWording
from .needles import NeedleWording
from .passages import PassageWording

NEEDLES = NeedleWording(
    needle="Vault {key} opens with the combination {value}.",
    instruction="This text mentions vaults here and there.\n\n",
    question="With which combinations does vault {query} open? Give every one of them.",
    answer_prefix="Vault {query} opens with",
    singular=(("combinations", "combination"), (" Give every one of them.", "")),
)
CHAINS = ChainWording(
    first="Box {b} holds {value}.",
    then="Box {b} holds the same as box {a}.",
    noise="A bell rings. Snow lies on the hill. Somebody waves. The train is late.",
    instruction="Keep in mind what each box holds in the lines that follow.\n\n",
    question="Task: List all boxes that hold {query}, by the lines.",
    answer_prefix="Reply: By the lines, {n} boxes hold {query}: ",
)
_ASKED = "Reply to what is asked about the articles in a word or two."
PASSAGES = PassageWording(
    facts=(
        ("{name} spent all childhood in {value}.", "Where did {name} spend all childhood?"),
        ("{name} earned a living as a {value}.", "As what did {name} earn a living?"),
        ("{name} practised the {value} after supper.", "What did {name} practise after supper?"),
        ("{name} kept a hound named {value}.", "How was the hound named that {name} kept?"),
        ("{name} opened the inn in {value}.", "When did {name} open the inn?"),
        ("{name} sold the mill for {value} florins.", "For how many florins did {name} sell the mill?"),
        ("{name} restored the church of {value}.", "Who restored the church of {value}?"),
    ),
    title="Article {i}\n",
    instruction=f"{_ASKED}\n\nHere are the articles.\n\n",
    tail=f"\n\n{_ASKED}",
    question="{asked}",
    answer_prefix="Reply:",
)
