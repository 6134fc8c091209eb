"""``lazygguf chat``: one answer, or a conversation.

Owns the command's options and what is asked: the document (``-f``, piped stdin), the question (``-p``), the
system prompt. Asking is ``session.py``'s, the conversation ``repl.py``'s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from typing import Any, Optional

from ..model.lazy_model import LazyModel
from ..read.sources import N_SOURCES
from .arguments import (
    NO_DRAFT,
    add_compute_arguments,
    add_file_argument,
    add_placement_argument,
    check_least,
    compute_options,
)
from .demo import demo_draft, model_or_demo
from .document import Document
from .main import UsageError
from .repl import Repl
from .session import ChatSession, make_settings
from .streams import stdout_is_unicode
from .terminal import Screen
from .terminal_mode import terminal_for_typing, unechoed_input
from .text_file import read_text

NO_HISTORY = "LAZYGGUF_NOHISTORY"

_EPILOG = """\
The document comes first in the prompt, then the question: -f FILE and -p TEXT. Piped stdin is the document
when only -p is given, the question when only -f is given, and the whole prompt when neither is; "-f -" reads
it in any case.
With -st, or when stdin is not a terminal, the answer is printed and the program ends."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``lazygguf chat``, spelled as llama.cpp spells them."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    _add_prompt_arguments(parser.add_argument_group("what to ask"))
    _add_model_arguments(parser.add_argument_group("model"))
    _add_sampling_arguments(parser.add_argument_group("answer"))
    _add_output_arguments(parser.add_argument_group("output"))


def run(args: argparse.Namespace) -> int:
    """Answers once or holds a conversation; returns the exit code."""
    asked = _read_asked(args)
    once = args.single_turn or args.json or not sys.stdin.isatty()
    if once and not asked.turn.text:
        raise UsageError("nothing to ask: give a question with -p, a document with -f, or pipe text to stdin")
    settings = _settings(args)
    check_least(args, {"sources": 1})
    model_path = model_or_demo(args.model)
    screen = Screen(args.color, args.show_timings and not args.json, args.wordwrap, args.markdown)
    typing_on = None if once else terminal_for_typing()
    # from here on what is typed waits for the prompt, also while the model is opened
    with contextlib.ExitStack() as stack:
        if typing_on is not None:
            stack.enter_context(unechoed_input())
        options = {**_model_options(args), **_draft_options(args, model_path)}
        session = ChatSession(
            stack.enter_context(LazyModel(model_path, **options)),
            screen,
            asked.system,
            settings,
            quiet=args.json,
            n_sources=args.sources or 0,
        )
        stack.enter_context(session.kept_in(args.session))
        if once:
            answer = session.ask(asked.turn)
            if args.json:
                print(json.dumps(answer.to_dict(), ensure_ascii=not stdout_is_unicode()))
            return 0
        return Repl(session, screen, typing_on, _keeps_history(args)).run(asked.document, asked.question)


def _keeps_history(args: argparse.Namespace) -> bool:
    return bool(args.history) and os.environ.get(NO_HISTORY, "") in ("", "0")


@dataclass(frozen=True)
class Asked:
    """What the command line asks: a document, a question about it, and how to behave."""

    document: Document
    question: str
    system: Optional[str]

    @property
    def turn(self) -> Document:
        """Document and question as one user turn."""
        return self.document.asked(self.question)


def _read_asked(args: argparse.Namespace) -> Asked:
    files = args.file or []
    documents = [Document.of_file(path, read_text(path)) for path in files]
    question = args.prompt or ""
    piped = not sys.stdin.isatty() and "-" not in files and not (files and args.prompt is not None)
    if piped:
        text = read_text("-")
        if args.prompt is not None:
            documents.append(Document.of_file("-", text))
        else:
            question = text
    system = read_text(args.system_prompt_file) if args.system_prompt_file else args.system_prompt
    document = documents[0] if documents else Document()
    for other in documents[1:]:
        document = document.then(other)
    return Asked(document, question, system)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    names = ("grammar", "grammar_file", "json_schema", "json_schema_file")
    given = [name for name in names if getattr(args, name) is not None]
    if len(given) > 1:
        raise UsageError(f"--{given[0].replace('_', '-')} and --{given[1].replace('_', '-')} exclude each other")
    grammar = args.grammar if args.grammar_file is None else read_text(args.grammar_file)
    schema = args.json_schema if args.json_schema_file is None else read_text(args.json_schema_file)
    return make_settings(
        temperature=args.temp,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repeat_penalty=args.repeat_penalty,
        seed=args.seed,
        max_tokens=args.n_predict,
        grammar=grammar,
        json_schema=schema,
    )


def _model_options(args: argparse.Namespace) -> dict[str, Any]:
    if args.chat_template is not None and args.chat_template_file is not None:
        raise UsageError("--chat-template and --chat-template-file exclude each other")
    template = read_text(args.chat_template_file) if args.chat_template_file else args.chat_template
    return {
        "n_ctx": args.ctx_size,
        **compute_options(args),
        "n_threads_batch": args.threads_batch,
        "weights": args.weights,
        "placement": args.placement,
        "type_k": args.cache_type_k,
        "type_v": args.cache_type_v,
        "keep": args.keep,
        "max_revive": args.max_revive,
        "chat_template": template,
        "verbose": args.verbose,
    }


def _draft_options(args: argparse.Namespace, model_path: str) -> dict[str, Any]:
    draft = args.model_draft
    if draft is None:
        draft = demo_draft(model_path, args.keep)
    return {
        "draft": None if draft == NO_DRAFT else draft,
        "n_gpu_layers_draft": args.n_gpu_layers_draft,
        "second_look": args.second_look,
        "headings": args.headings,
    }


def _add_prompt_arguments(group: Any) -> None:
    group.add_argument("-p", "--prompt", metavar="TEXT", help="the question")
    group.add_argument("-f", "--file", action="append", metavar="FILE", help="a document, - for stdin; repeatable")
    group.add_argument("-sys", "--system-prompt", metavar="TEXT", help="how the model is to behave")
    group.add_argument("-sysf", "--system-prompt-file", metavar="FILE", help="the same, from a file")
    group.add_argument(
        "--session", metavar="FILE", help="go on with the conversation in this file, if it is there; save it at the end"
    )
    group.add_argument("-st", "--single-turn", action="store_true", help="answer once and end")


def _add_model_arguments(group: Any) -> None:
    add_file_argument(group)
    group.add_argument("-c", "--ctx-size", type=int, default=0, metavar="N", help="context, tokens (0: the model's)")
    group.add_argument("--keep", default="auto", metavar="WHAT", help='"auto", "off", "10:0.3,13:0.08" or a .json file')
    group.add_argument("--headings", metavar="REGEX", help='lines that begin so are always read, such as "#+ "')
    group.add_argument("--max-revive", type=int, metavar="N", help="tokens brought back per step, -1 no limit")
    add_compute_arguments(group, f'; without it the demo model, where it pays; "{NO_DRAFT}": none')
    add_placement_argument(group)
    group.add_argument("-tb", "--threads-batch", type=int, metavar="N", help="threads while reading (default: -t)")
    group.add_argument(
        "--weights",
        choices=("fast", "as-is"),
        default="fast",
        help="fast: a second, faster form of slow weights for reading; as-is: the file's own only (fast)",
    )
    group.add_argument("-ctk", "--cache-type-k", default="f16", metavar="T", help="K cache: f16, f32 or q8_0")
    group.add_argument("-ctv", "--cache-type-v", default="f16", metavar="T", help="V cache: f16, f32 or q8_0")
    group.add_argument("--chat-template", metavar="JINJA", help="use this template instead of the model's")
    group.add_argument("--chat-template-file", metavar="FILE", help="the same, from a file")


def _add_sampling_arguments(group: Any) -> None:
    group.add_argument(
        "-n", "--n-predict", "--predict", type=int, default=1024, metavar="N", help="tokens, -1 no limit (1024)"
    )
    group.add_argument("--temp", type=float, default=0.2, metavar="T", help="temperature (0.2)")
    group.add_argument("--top-k", type=int, default=40, metavar="N", help="the N most probable tokens (40)")
    group.add_argument("--top-p", type=float, default=0.95, metavar="P", help="tokens up to this probability (0.95)")
    group.add_argument("--min-p", type=float, default=0.05, metavar="P", help="least relative probability (0.05)")
    group.add_argument(
        "--repeat-penalty", type=float, default=1.1, metavar="X", help="against repetition (1.1; 1: off)"
    )
    group.add_argument("-s", "--seed", type=int, default=-1, metavar="N", help="repeatable answers (-1: a new one)")
    group.add_argument("--grammar", metavar="GBNF", help="what the answer must match")
    group.add_argument("--grammar-file", metavar="FILE", help="the same, from a file")
    group.add_argument("-j", "--json-schema", metavar="JSON", help="answer JSON of this schema ({}: any)")
    group.add_argument("-jf", "--json-schema-file", metavar="FILE", help="the same, from a file")


def _add_output_arguments(group: Any) -> None:
    group.add_argument("--json", action="store_true", help="answer once, as JSON with the stats")
    group.add_argument(
        "--sources",
        nargs="?",
        type=int,
        const=N_SOURCES,
        metavar="N",
        help=f"after each answer the N passages of the text that it leaned on most, with their lines ({N_SOURCES})",
    )
    group.add_argument(
        "--show-timings", dest="show_timings", action="store_true", default=True, help="footer (default)"
    )
    group.add_argument("--no-show-timings", dest="show_timings", action="store_false", help="no footer")
    group.add_argument(
        "--markdown",
        choices=("on", "off", "auto"),
        default="off",
        help="show answers as Markdown; auto: where stdout is a terminal (off)",
    )
    group.add_argument("--nowordwrap", dest="wordwrap", action="store_false", help="let the terminal break lines")
    group.add_argument(
        "--nohistory", dest="history", action="store_false", help=f"store no typed messages (also {NO_HISTORY}=1)"
    )
    group.add_argument("-co", "--color", choices=("on", "off", "auto"), default="auto", help="colours on stderr (auto)")
    group.add_argument("-v", "--verbose", action="store_true", help="llama.cpp's log, and where the layers are")
