"""``LazyModel``: one model file, ready to answer.

Owns the public calls, which have the names and meaning of ``llama_cpp.Llama``'s. What it works with is opened in
``parts.py``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Optional, Union, overload

import numpy as np
import numpy.typing as npt
from llama_cpp.llama import LlamaState

from .._ffi import ProgressCallback
from .._names import path_text, refuse_unknown
from .._numbers import as_integer, flag, integer
from ..draft.draft import DraftModel
from ..generate.loop import Piece, Request, generate, sample_tokens
from ..generate.openai import (
    ChatChunks,
    ChatCompletion,
    Completion,
    Envelope,
    TextChunks,
    chat_chunks,
    chat_result,
    text_chunks,
    text_result,
)
from ..generate.options import ChatArguments, CompletionOptions, GenerateArguments, TextArguments
from ..generate.sampling import SEED_MAX, Sampler, SamplingParams
from ..read.context import TokenContext
from ..read.prompt import Prompt
from ..read.sources import N_SOURCES, Source
from ..read.stats import Stats
from ..schedule.keep import KeepArgument
from ..schedule.keep_schedule import KeepSchedule
from ..schedule.scoring import ScoringProfile, resolve_scoring
from ..text.asked import Asked
from ..text.grammar import GrammarLike
from ..text.llama_log import show_llama_log
from ..text.templates import ChatTemplate, template_source
from ..text.tokenizer import TokenIds, encode_text
from .options import ModelOptions, checked_callback, refuse_other
from .parts import ModelParts
from .sessions import SavedSessions, StateCache

if TYPE_CHECKING:
    from typing_extensions import Unpack  # known to every type checker; nothing imports it when the program runs

PromptLike = Union[str, TokenIds]
Messages = Sequence[Mapping[str, Any]]


class LazyModel:
    """A GGUF model that reads long prompts lazily.

    Use it as a context manager or call ``close``. One thread at a time; ``cancel`` may come from any thread.

    Attributes:
        model_path: the file.
        metadata: the file's key-value pairs; arrays are lists.
        schedule: the keep schedule that ``keep`` came to; None runs dense.
        chat_template: renders chats.
        cache: see ``set_cache``.
    """

    def __init__(
        self,
        model_path: Union[str, os.PathLike[str]],
        *,
        n_ctx: int = 0,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_threads: Optional[int] = None,
        n_threads_batch: Optional[int] = None,
        n_gpu_layers: Union[int, str] = 0,
        n_gpu_layers_draft: Union[int, str, None] = None,
        device: Union[str, Sequence[str], None] = None,
        rpc_servers: Union[str, Sequence[str], None] = None,
        placement: str = "work",
        use_mmap: bool = True,
        weights: str = "fast",
        keep: KeepArgument = "auto",
        max_revive: Optional[int] = None,
        draft: Union[str, os.PathLike[str], LazyModel, None] = None,
        scoring: Union[str, ScoringProfile, None] = None,
        second_look: float = 0.05,
        headings: Optional[str] = None,
        seed: Optional[int] = None,
        type_k: Union[str, int, None] = "f16",
        type_v: Union[str, int, None] = "f16",
        chat_template: Optional[str] = None,
        verbose: bool = False,
        progress_callback: Optional[ProgressCallback] = None,
        **refused: NoReturn,
    ) -> None:
        """Opens a model.

        Args:
            model_path: a GGUF file.
            **refused: other arguments of ``llama_cpp.Llama``, accepted with the value that changes nothing;
                ``chat_format`` may be ``"chatml"``, ``"llama-3"`` or ``"mistral-instruct"`` where no ``chat_template``
                is given.

        The other arguments are described in ``lazygguf.model.options.ModelOptions``.

        Raises:
            FileNotFoundError, IsADirectoryError, PermissionError: the file cannot be opened.
            ModelFileError, UnsupportedModelError: what is in it cannot be used.
            ValueError, TypeError: an unknown or impossible argument.
            MemoryError: the weights or caches do not fit into memory.
            LazyError: an RPC server does not answer.
        """
        given = locals()
        refuse_other(refused)
        chat_template = template_source(chat_template, refused.get("chat_format"))
        chosen = ModelOptions(**{option.name: given[option.name] for option in fields(ModelOptions)})
        self._context: Optional[TokenContext] = None
        self.cache: Optional[StateCache] = None
        self._options = chosen
        self.model_path = path_text("model_path", model_path)
        if chosen.verbose:
            show_llama_log()
        self._parts = parts = ModelParts(self.model_path, chosen)
        self.metadata: dict[str, Any] = parts.file.metadata
        try:
            self._context = parts.main_context()
            self.schedule: Optional[KeepSchedule] = parts.placed_for
            self._tokenizer = parts.tokenizer
            self.chat_template = ChatTemplate(self._tokenizer, self.metadata, chat_template)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # a session that Ctrl-C left behind: it goes with the exception
                parts.close()
            raise
        self._asked: Optional[Asked] = None  # of the newest answer
        self._seeds = None if chosen.seed in (None, -1) else np.random.default_rng(chosen.seed)

    def as_draft(self, scoring: Union[str, ScoringProfile, None] = None) -> DraftModel:
        """This model as another one's draft: on these weights, with a context of its own."""
        file, weights = self._parts.file, self._parts.weights
        profile = resolve_scoring(scoring, file.metadata, file.shipped_scoring, file.windowed)
        return DraftModel(weights, self._tokenizer, profile, file, self.n_ctx(), is_ours=False)

    # ---- tokens ----------------------------------------------------------------------------------

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of UTF-8 text; see ``Tokenizer.tokenize``."""
        return self._tokenizer.tokenize(text, flag("add_bos", add_bos), flag("special", special))

    def detokenize(self, tokens: TokenIds, prev_tokens: Optional[TokenIds] = None, special: bool = False) -> bytes:
        """The bytes of token ids.

        Args:
            tokens: token ids.
            prev_tokens: as in ``llama_cpp``, where GGUF vocabularies do not need it either.
            special: write control tokens as text; else they are nothing.
        """
        return self._tokenizer.detokenize(tokens, flag("special", special))

    def token_bos(self) -> int:
        """The id of the beginning-of-text token, -1 where there is none."""
        return self._tokenizer.token_bos()

    def token_eos(self) -> int:
        """The id of the end-of-text token, -1 where there is none."""
        return self._tokenizer.token_eos()

    def token_nl(self) -> int:
        """The id of the line-break token, -1 where there is none."""
        return self._tokenizer.token_nl()

    def n_vocab(self) -> int:
        """Tokens in the vocabulary."""
        return self._parts.weights.n_vocab

    def n_embd(self) -> int:
        """Width of the hidden state."""
        return self._parts.weights.n_embd

    def n_ctx(self) -> int:
        """Tokens the context can hold."""
        return self._ready().n_ctx

    # ---- reading ---------------------------------------------------------------------------------

    def eval(
        self, tokens: TokenIds, scores: Optional[npt.ArrayLike] = None, query_span: Optional[tuple[int, int]] = None
    ) -> None:
        """Reads tokens after those in the context; ``logits`` are then the last one's.

        Args:
            tokens: token ids, (n,).
            scores: what matters, by your own measure (a retriever, another model): a number for every token in the
                context, old and new, (n_tokens + n,). The schedule needs a pruning point before layer 0
                (``keep="-1:0.2"``), which keeps the highest; what is not read waits, and later scores can bring it
                in. inf: read in any case. NaN: a new token is read, an old one stays as it was.
            query_span: positions [begin, end) of the question, which is never pruned and asks where a pruning
                point's ``n_query`` is ``"question"``.

        Raises:
            ValueError: no token, an id outside the vocabulary, or scores that do not fit.
            ContextFullError: they do not fit; nothing was read.
        """
        ids = self._tokenizer.check_ids(tokens)
        if ids.size == 0:
            raise ValueError("tokens is empty, expected at least one")
        context = self._ready()
        span = None if query_span is None else _span(query_span, context.n_tokens + len(ids))
        context.append(Prompt([int(token) for token in ids], span), _score_array(scores))

    @property
    def logits(self) -> Optional[npt.NDArray[np.float32]]:
        """Logits after the newest token, (n_vocab,) float32, a copy; None before the first ``eval``."""
        return self._ready().logits()

    @property
    def n_tokens(self) -> int:
        """Tokens in the context."""
        return self._ready().n_tokens

    @property
    def stats(self) -> Stats:
        """What the last ``eval`` or generation did, a copy."""
        stats = self._ready().stats
        kept, sources, traffic_bytes = list(stats.kept), list(stats.sources), dict(stats.traffic_bytes)
        return replace(stats, kept=kept, sources=sources, traffic_bytes=traffic_bytes)

    def sources(self, n: int = N_SOURCES) -> list[Source]:
        """The passages that the newest answer leaned on, the best first; ``stats.sources`` then has them too.

        They are found in what the user gave: the prompt of a completion, or the messages of a chat. The question,
        system prompts and the model's own answers hold none. Fewer than ``n`` are given where nothing more was
        attended to.

        Args:
            n: how many, at most.

        Raises:
            ValueError: ``n`` is no integer of at least 1.
            RuntimeError: there is no answer, or the context was used for something else since.
        """
        n = integer("n", n, 1, 2**31 - 1)
        context, asked = self._ready(), self._asked
        attended = None if asked is None else context.attended(asked.prompt)
        if asked is None or attended is None:
            raise RuntimeError(
                "sources: there is no answer in the context; call create_chat_completion or create_completion first"
            )
        pieces = [self._tokenizer.piece(token, special=True) for token in asked.prompt.ids]
        context.stats.sources = asked.sources(attended, pieces, n)
        return list(context.stats.sources)

    @property
    def progress_callback(self) -> Optional[ProgressCallback]:
        """Called while a prompt is read; may be set between calls."""
        return self._ready().progress

    @progress_callback.setter
    def progress_callback(self, callback: Optional[ProgressCallback]) -> None:
        self._ready().progress = checked_callback("progress_callback", callback)

    @property
    def skim_callback(self) -> Optional[ProgressCallback]:
        """Called while the draft reads a prompt, with its own tokens; may be set between calls."""
        return self._ready().draft_progress

    @skim_callback.setter
    def skim_callback(self, callback: Optional[ProgressCallback]) -> None:
        self._ready().draft_progress = checked_callback("skim_callback", callback)

    def reset(self) -> None:
        """Forgets every token."""
        self._ready().reset()

    # ---- keeping sessions ------------------------------------------------------------------------

    def save_session(self, path: Union[str, os.PathLike[str]], *, extra: Any = None) -> None:
        """Saves all that the model has read, so that ``load_session`` goes on from there, also in another process.

        An existing session is replaced when the new one is on the disk, and stays whole whatever happens before. The
        file holds the text that was read; only its owner can read it.

        Args:
            path: the file.
            extra: JSON values to keep beside it, such as the messages of a chat; ``load_session`` gives them back.

        Raises:
            OSError: it cannot be written, or another kind of file has this name.
            TypeError, ValueError: ``extra`` is not JSON.
        """
        self._saved().save(path, extra)

    def load_session(self, path: Union[str, os.PathLike[str]]) -> Any:
        """Puts a saved session in the place of what the model has read.

        It must have been saved with the same model file, keep schedule, ``type_k`` and ``type_v``. On the CPU of one
        machine the next answer is then the same, bit for bit, as without a restart. On any failure the model is as it
        was.

        Args:
            path: the file.

        Returns:
            The ``extra`` that was given to ``save_session``.

        Raises:
            OSError: it cannot be read.
            SessionFileError: it is no whole session, or of another model or other options; the message says which.
            ContextFullError: it does not fit into ``n_ctx``.
            MemoryError: there is no room for it beside what the model holds.
        """
        return self._saved().load(path)

    def save_state(self) -> LlamaState:
        """The same as a ``llama_cpp.LlamaState``, in memory. Its ``scores`` are the newest token's logits."""
        return self._saved().state()

    def load_state(self, state: LlamaState) -> None:
        """Takes what ``save_state`` gave; errors as ``load_session``."""
        self._saved().restore(state)

    def set_cache(self, cache: Optional[StateCache]) -> None:
        """Has completions begin from the nearest state in a cache and put theirs into it, as in ``llama_cpp``.

        Args:
            cache: ``llama_cpp.LlamaRAMCache`` or ``LlamaDiskCache``; None is none.
        """
        self.cache = cache

    def cancel(self) -> None:
        """Stops the read or generation under way, from any thread; that one raises ``Cancelled``."""
        if self._context is not None:
            self._context.cancel()

    # ---- generating ------------------------------------------------------------------------------

    @overload
    def create_completion(
        self, prompt: PromptLike, *, stream: Literal[False] = False, **options: Unpack[TextArguments]
    ) -> Completion: ...
    @overload
    def create_completion(
        self, prompt: PromptLike, *, stream: Literal[True], **options: Unpack[TextArguments]
    ) -> TextChunks: ...
    @overload
    def create_completion(
        self, prompt: PromptLike, *, stream: bool, **options: Unpack[TextArguments]
    ) -> Union[Completion, TextChunks]: ...

    def create_completion(
        self, prompt: PromptLike, *, stream: bool = False, **options: Unpack[TextArguments]
    ) -> Union[Completion, TextChunks]:
        """Goes on with a text.

        Args:
            prompt: text, or token ids. An empty text begins from the BOS token.
            stream: give the result in chunks while it is made.
            **options: see ``lazygguf.generate.options.TextArguments``: ``max_tokens`` (16; None or <= 0 is until the
                context is full), ``temperature`` (0.8), ``stop``, ``seed`` and more.

        Returns:
            OpenAI's ``text_completion`` as a dictionary, or its chunks when ``stream`` is true.

        Raises:
            ValueError, TypeError: an unknown or impossible option.
            ContextFullError: the prompt leaves no room for an answer.
        """
        started = time.perf_counter()
        context, chosen, in_chunks = self._ready(), CompletionOptions.of_text(options), flag("stream", stream)
        ids = self._prompt_ids(prompt, chosen.parse_special)
        self._check_scored()
        context.check_room(len(ids))
        text = prompt if isinstance(prompt, str) else self.detokenize(ids).decode("utf-8", "replace")
        envelope = Envelope(
            model=chosen.model or self.model_path,
            n_prompt=len(ids),
            prompt=text if chosen.echo else "",
            offset=len(text),
        )
        self._asked = Asked(Prompt(ids), prompt if isinstance(prompt, str) else None)
        pieces = self._pieces(self._seeded(chosen).request(self._asked.prompt, started))
        return text_chunks(envelope, pieces) if in_chunks else text_result(envelope, pieces)

    __call__ = create_completion

    @overload
    def create_chat_completion(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatArguments]
    ) -> ChatCompletion: ...
    @overload
    def create_chat_completion(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatArguments]
    ) -> ChatChunks: ...
    @overload
    def create_chat_completion(
        self, messages: Messages, *, stream: bool, **options: Unpack[ChatArguments]
    ) -> Union[ChatCompletion, ChatChunks]: ...

    def create_chat_completion(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatArguments]
    ) -> Union[ChatCompletion, ChatChunks]:
        """Answers the last turn of a chat.

        What the context holds of the chat already is not read again, and pruned tokens come back as the new
        question needs them.

        Args:
            messages: ``{"role": ..., "content": ...}``, oldest first.
            stream: give the result in chunks while it is made.
            **options: see ``lazygguf.generate.options.ChatArguments``: ``max_tokens`` (None), ``temperature`` (0.2),
                ``stop``, ``response_format`` and more.

        Returns:
            OpenAI's ``chat.completion`` as a dictionary, or its chunks when ``stream`` is true.

        Raises:
            ValueError, TypeError: malformed messages, or an unknown or impossible option.
            ContextFullError: the chat leaves no room for an answer.
        """
        started = time.perf_counter()
        context, chosen, in_chunks = self._ready(), CompletionOptions.of_chat(options), flag("stream", stream)
        self._check_scored()
        chat = self.chat_template.render(messages, chosen.parse_special)
        n_prompt = len(chat.prompt.ids)
        context.check_room(n_prompt)
        envelope = Envelope(model=chosen.model or self.model_path, n_prompt=n_prompt, offset=len(chat.text))
        self._asked = Asked(chat.prompt, chat.text, chat.turns)
        pieces = self._pieces(self._seeded(chosen).request(self._asked.prompt, started))
        return chat_chunks(envelope, pieces) if in_chunks else chat_result(envelope, pieces)

    def generate(
        self,
        tokens: TokenIds,
        *,
        temp: float = 0.8,
        grammar: Optional[GrammarLike] = None,
        **sampling: Unpack[GenerateArguments],
    ) -> Generator[int, None, None]:
        """Yields sampled token ids until the context is full; the caller decides when to stop.

        Args:
            tokens: the prompt.
            temp: the temperature.
            grammar: GBNF text or a ``llama_cpp.LlamaGrammar``.
            **sampling: see ``SamplingParams``.
        """
        context = self._ready()
        refuse_unknown(sampling, [f.name for f in fields(SamplingParams)], "sampling option")
        given: dict[str, Any] = {"temperature": temp, **sampling}
        params = self._with_seed(SamplingParams(**given))
        self._check_scored()
        ids = self._prompt_ids(tokens, name="tokens")
        context.check_room(len(ids))
        self._asked = Asked(Prompt(ids))
        return self._generate_ids(context, Request(self._asked.prompt, sampling=params, grammar=grammar))

    def _generate_ids(self, context: TokenContext, request: Request) -> Generator[int, None, None]:
        with Sampler(self._tokenizer, request.sampling, request.grammar) as sampler:
            for token, _ in sample_tokens(context, sampler, request):
                yield token

    # ---- life ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Frees the model; a second call does nothing. RuntimeError while another thread uses it."""
        if self._context is not None:
            self._context.close()
            self._context = None
            self._parts.close()

    def __enter__(self) -> LazyModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a LazyModel cannot be pickled or copied: it holds weights and caches; open the file again")

    def __repr__(self) -> str:
        keep = "off" if self.schedule is None else str(self.schedule)
        return f"LazyModel({self.model_path!r}, keep={keep!r})"

    def _ready(self) -> TokenContext:
        if self._context is None:
            raise RuntimeError("the model is closed")
        return self._context

    def _saved(self) -> SavedSessions:
        return SavedSessions(self._parts, self._ready(), self.schedule, self._seeds)

    def _pieces(self, request: Request) -> Generator[Piece, None, None]:
        """Runs a request, from the cache's nearest state and into it where there is a cache."""
        pieces = generate(self._ready(), self._tokenizer, request)
        if self.cache is None:
            return pieces
        saved, ids = self._saved(), list(request.prompt.ids)
        return saved.through(self.cache, ids, pieces)

    def _check_scored(self) -> None:
        if self._options.draft is None and self.schedule is not None and self.schedule.entry is not None:
            raise ValueError(
                f'keep schedule "{self.schedule}": il -1 prunes by scores from outside; name a draft model with '
                "draft=, give scores to eval(scores=...), or leave the point out"
            )

    def _prompt_ids(self, prompt: PromptLike, parse_special: bool = True, name: str = "prompt") -> list[int]:
        if isinstance(prompt, (bytes, bytearray)):
            raise TypeError(f"{name} is bytes, expected text or token ids")
        if not isinstance(prompt, (str, Iterable)):
            raise TypeError(f"{name} is {prompt!r}, expected text or token ids")
        if not isinstance(prompt, str):
            ids = [int(token) for token in self._tokenizer.check_ids(prompt)]
        else:
            ids = self.tokenize(encode_text(prompt), add_bos=True, special=parse_special)
            if not ids and self.token_bos() >= 0:
                ids = [self.token_bos()]
        if not ids:
            raise ValueError(f"{name} is empty, expected at least one token (the model has no BOS token to begin from)")
        return ids

    def _seeded(self, options: CompletionOptions) -> CompletionOptions:
        return replace(options, sampling=self._with_seed(options.sampling))

    def _with_seed(self, params: SamplingParams) -> SamplingParams:
        """A call without a seed takes the next one of the model's, where the model has one."""
        if self._seeds is None or params.seed not in (None, -1):
            return params
        return replace(params, seed=int(self._seeds.integers(SEED_MAX)))


def _span(given: Any, n_tokens: int) -> tuple[int, int]:
    """A question's positions, checked."""
    try:
        begin, end = (as_integer(position) for position in given)
    except (TypeError, ValueError):
        begin = end = None
    if begin is None or end is None or not 0 <= begin < end <= n_tokens:
        raise ValueError(
            f"query_span is {given!r}, expected two positions (begin, end) with 0 <= begin < end <= {n_tokens}, "
            "the tokens in the context with these"
        )
    return begin, end


def _score_array(scores: Optional[npt.ArrayLike]) -> Optional[npt.NDArray[np.float32]]:
    if scores is None:
        return None
    try:
        array = np.asarray(scores, np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"scores is {repr(scores)[:60]}, expected a number for every token in the context") from None
    if array.ndim != 1:
        raise ValueError(f"scores have the shape {array.shape}, expected (n_tokens,)")
    return array
