"""Saved sessions: a context and a draft's cache in a file, and back.

Owns what the file's header says, and which sessions it fits. The framing is ``files/block_file.py``'s, the bytes of a
session the native core's; docs/sessions.md describes both.

A file fits where the weights, the types of the K and V cache and the keep schedule are the same. Where another version
or instruction set saved it, it fits too, but the answers may differ in the last bits from those without a restart.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Callable, Optional

from ..errors import ContextFullError, SessionFileError
from ..files.block_file import BlockReader, BlockWriter, Part
from ..schedule.keep_schedule import KeepSchedule
from .context import TokenContext
from .prompt import Prompt
from .session import Session

logger = logging.getLogger("lazygguf")

_EXTRA, _DRAFT, _SESSION = "extra", "draft", "session"


@dataclass(frozen=True)
class Origin:
    """What a session's rows came from.

    Attributes:
        weights_id: of the model file, see ``ModelFile.weights_id``.
        fingerprint: of the model, which all its quantizations share; None where the file has none.
        model: its name, for messages.
        type_k, type_v: types of its cache.
        schedule: its keep schedule as JSON values; None is dense.
        build: versions and kernels, by name.
    """

    weights_id: str
    fingerprint: Optional[str]
    model: str
    type_k: str
    type_v: str
    schedule: Optional[dict[str, Any]]
    build: dict[str, str]


def save_context(file: BinaryIO, context: TokenContext, origin: Origin, extra: Any = None, state: Any = None) -> None:
    """Writes a context, with what its draft has read.

    Args:
        file: at its begin.
        context: not in use.
        origin: of its model.
        extra: JSON values of the user's, of any size.
        state: JSON values of the model's, small.

    Raises:
        TypeError, ValueError: ``extra`` is not JSON.
        RuntimeError: the context is in use.
    """
    said = json.dumps(extra).encode()
    with context.exclusive() as session:
        draft = context.draft_cache()
        header = {
            **asdict(origin),
            "byte_order": sys.byteorder,
            "n_tokens": session.n_tokens,
            "prompt": _prompt_values(context.marked),
            "state": state,
            "draft": None if draft is None else draft.origin,
        }
        parts = [Part(_EXTRA, len(said)), Part(_SESSION, session.saved_bytes())]
        if draft is not None:
            parts.insert(1, Part(_DRAFT, draft.reader.saved_bytes()))
        writer = BlockWriter(file, header, parts)
        writer.write(memoryview(said))
        writer.end_part()
        if draft is not None:
            draft.reader.save(writer.write)
            writer.end_part()
        session.save(writer.write)
        writer.end_part()


def load_context(
    file: BinaryIO, name: str, context: TokenContext, origin: Origin, check_state: Callable[[Any], None]
) -> Any:
    """Puts a saved context in the place of what this one holds.

    The draft's part is passed over where it is of another draft, or where there is none here: the draft reads again
    then. The context itself comes last, so that it is as it was where anything before it is damaged.

    Args:
        file: see ``BlockReader``.
        name: of the file, for messages.
        context: not in use.
        origin: of its model.
        check_state: called with the ``state`` that was given to ``save_context`` before anything changes.

    Returns:
        The ``extra`` that was given to it.

    Raises:
        SessionFileError: it is no saved session, is damaged, or does not fit; the context is as it was.
        ContextFullError: it does not fit into ``n_ctx``; the context is as it was.
        MemoryError: there is no room for both; the context is as it was.
        RuntimeError: the context is in use.
    """
    blocks = BlockReader(file, name)
    _check_fits(blocks.header, name, origin)
    marked = _marked_of(blocks.header.get("prompt"), name)
    check_state(blocks.header.get("state"))
    extra: list[Any] = []

    def fill(session: Session) -> None:
        draft = context.draft_cache()
        for part in blocks.parts():
            if part.name == _EXTRA:
                extra.append(_json(blocks.read_all(), name))
            elif part.name == _SESSION:
                with _named(name):
                    session.load(part.n_bytes, blocks.read_into)
            elif draft is not None and blocks.header.get("draft") == draft.origin:
                with _named(name):
                    draft.reader.load(part.n_bytes, blocks.read_into)

    context.take(fill, marked)
    return extra[0]


# ---- whether a file fits ---------------------------------------------------------------------------------------------


def _check_fits(header: Mapping[str, Any], name: str, origin: Origin) -> None:
    """Raises SessionFileError where the file is of another model or was saved with other options."""
    names = [part[0] for part in header["parts"]]
    if names not in ([_EXTRA, _SESSION], [_EXTRA, _DRAFT, _SESSION]):
        raise _damaged(name, f"its parts are {', '.join(names) or 'none'}")
    if header.get("byte_order") != sys.byteorder:
        raise SessionFileError(f"{name}: the session was saved on a machine of another byte order")
    difference = _difference(header, origin)
    if difference:
        raise SessionFileError(f"{name}: {difference}")
    build = header.get("build")
    if build != origin.build:
        was = build if isinstance(build, dict) else {}
        differs = [f"{key} {was.get(key)}, here {here}" for key, here in origin.build.items() if was.get(key) != here]
        logger.warning("%s was saved with %s: answers may differ in the last bits", name, "; ".join(differs))


def _difference(header: Mapping[str, Any], origin: Origin) -> str:
    """What keeps a file from fitting, and the way out; "" for nothing."""
    if header.get("weights_id") != origin.weights_id:
        is_same = origin.fingerprint is not None and header.get("fingerprint") == origin.fingerprint
        what = "another quantization or conversion of this model" if is_same else "another model"
        model = str(header.get("model"))[:80]
        return f"the session was saved with {what} ({model}); open the file that it was saved with"
    for key in ("type_k", "type_v"):
        saved, here = header.get(key), getattr(origin, key)
        if saved != here:
            option = f"--cache-type-{key[-1]}"
            return f"the session was saved with {key} {saved!r}, this model has {here!r}; open it with {option} {saved}"
    return _schedule_difference(header.get("schedule"), origin.schedule)


def _schedule_difference(saved: Any, here: Optional[dict[str, Any]]) -> str:
    if saved == here:
        return ""
    try:
        was = "off" if saved is None else str(KeepSchedule.from_dict(saved))
    except (ValueError, TypeError):
        was = "an unknown schedule"
    now = "off" if here is None else str(KeepSchedule.from_dict(here))
    if was != now:
        return f"the session was saved with the keep schedule {was!r}, this model has {now!r}; open it with that one"
    names = [key for key, value in (here or {}).items() if saved.get(key) != value]
    return f"the session was saved with another {' and '.join(names)} of the keep schedule {now!r}; open it with that"


# ---- the header's values ---------------------------------------------------------------------------------------------


def _prompt_values(prompt: Optional[Prompt]) -> Optional[dict[str, Any]]:
    """The prompt that a context goes back to, as JSON values. Its ids are the context's first ones."""
    if prompt is None:
        return None
    return {
        "n_tokens": len(prompt.ids),
        "query_span": None if prompt.query_span is None else list(prompt.query_span),
        "protect": list(prompt.protect),
        "recent": list(prompt.recent),
    }


def _marked_of(values: Any, name: str) -> Callable[[list[int]], Optional[Prompt]]:
    """From the ids of the context, the prompt that it goes back to. The values are checked at once."""
    if values is None:
        return lambda ids: None
    try:
        n_tokens, span = values["n_tokens"], values["query_span"]
        lists = [values["protect"], values["recent"], [] if span is None else span]
        is_right = type(n_tokens) is int and n_tokens >= 0 and (span is None or len(span) == 2)
        is_right = is_right and all(type(pos) is int and 0 <= pos <= n_tokens for one in lists for pos in one)
    except (KeyError, TypeError):
        is_right = False
    if not is_right:
        raise _damaged(name, "its prompt is none")
    query_span = None if span is None else (span[0], span[1])
    protect, recent = tuple(values["protect"]), tuple(values["recent"])

    def marked(ids: list[int]) -> Optional[Prompt]:
        return Prompt(ids[:n_tokens], query_span, protect, recent) if n_tokens <= len(ids) else None

    return marked


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged(name, "what was saved beside it is no JSON") from None


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Has the native core's messages name the file."""
    try:
        yield
    except SessionFileError as error:
        raise error if str(error).startswith(name) else SessionFileError(f"{name}: {error}") from None
    except ContextFullError as error:
        raise ContextFullError(f"{name}: {error}") from None


def _damaged(name: str, what: str) -> SessionFileError:
    return SessionFileError(f"{name}: the saved session is damaged: {what}")
