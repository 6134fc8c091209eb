"""A program that opens a model, does what it is told and says what it sees; test_saved_sessions.py restarts it.

python restart_program.py MODEL.gguf OPTIONS-AS-JSON STEPS-AS-JSON

Prints one line of JSON for each step: ["ask", [contents...]] gives the answer and the logits after it, ["save", path],
["load", path] and ["saves", path] (again and again, without end, a line for each).
"""

import hashlib
import json
import sys
from typing import Any

from lazygguf import KeepSchedule, LazyModel


def seen(model: LazyModel) -> list[Any]:
    logits = model.logits
    stats = model.stats
    digest = None if logits is None else hashlib.sha256(logits.tobytes()).hexdigest()
    return [digest, model.n_tokens, stats.kept, stats.n_reused, stats.n_draft]


def ask(model: LazyModel, contents: list[str], **options: Any) -> list[Any]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    chunks: Any = model.create_chat_completion(messages, stream=True, **{"temperature": 0, "max_tokens": 4, **options})
    first = next(chunks)  # the prompt was read
    read = seen(model)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in [first, *chunks])
    return [text, read, seen(model)[:2]]


def main(path: str, options: dict[str, Any], steps: list[Any]) -> None:
    if "schedule" in options:
        options["keep"] = KeepSchedule.from_dict(options.pop("schedule"))
    with LazyModel(path, **options) as model:
        for name, *args in steps:
            if name == "ask":
                print(json.dumps(ask(model, *args)), flush=True)
            elif name == "sample":  # the model's own seed draws
                print(json.dumps(ask(model, *args, temperature=1.5)), flush=True)
            elif name == "save":
                model.save_session(args[0], extra={"said": args[0]})
                print(json.dumps("saved"), flush=True)
            elif name == "load":
                print(json.dumps(model.load_session(args[0])), flush=True)
            else:
                while True:
                    model.save_session(args[0])
                    print(json.dumps("saved"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(json.loads, sys.argv[2:]))
