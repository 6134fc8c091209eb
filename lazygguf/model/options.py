"""The arguments of ``LazyModel``: names, defaults, ranges, refusals.

Owns the checks that need no model. Names and meaning are ``llama_cpp.Llama``'s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Optional, Union

from .._ffi import ProgressCallback
from .._ffi.rpc import parse_servers
from .._names import is_same, path_text, refuse_unknown
from .._numbers import as_integer, as_number, flag, integer
from ..generate.sampling import SEED_MAX
from ..schedule.keep import KeepArgument
from ..schedule.scoring import ScoringProfile
from ..text.prompt_text import compile_headings
from ..text.templates import CHAT_FORMATS
from .devices import PLACEMENTS, check_request, device_names, layer_count

if TYPE_CHECKING:
    from .lazy_model import LazyModel

_INT_RANGES = {
    "n_ctx": (0, 2**31 - 1),
    "n_batch": (1, 2**31 - 1),
    "n_ubatch": (1, 2**31 - 1),
    "n_threads": (1, 512),
    "n_threads_batch": (1, 512),
    "seed": (-1, SEED_MAX),
}
_NONE_ALLOWED = ("n_threads", "n_threads_batch", "seed")
# of llama_cpp.Llama: accepted with its default and with what says what lazygguf does anyway
_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_type": (-1,),
    "chat_format": (None, *CHAT_FORMATS),
    "chat_handler": (None,),
    "draft_model": (None,),
    "embedding": (False,),
    "flash_attn": (False, True),  # which kernels compute attention here does not depend on it
    "kv_overrides": (None, {}),
    "last_n_tokens_size": (64,),
    "logits_all": (False, True),  # log-probabilities of an answer need it in llama_cpp; of a prompt there are none here
    "lora_base": (None,),
    "lora_path": (None,),
    "lora_scale": (1.0,),
    "main_gpu": (0,),
    "no_perf": (False, True),
    "numa": (False,),
    "offload_kqv": (True,),
    "op_offload": (None,),
    "pooling_type": (-1,),
    "rope_freq_base": (0.0,),
    "rope_freq_scale": (0.0,),
    "rope_scaling_type": (-1,),
    "split_mode": (1,),
    "spm_infill": (False,),
    "swa_full": (None,),
    "tensor_split": (None,),
    "tokenizer": (None,),
    "use_mlock": (False,),
    "vocab_only": (False,),
    "yarn_attn_factor": (1.0,),
    "yarn_beta_fast": (32.0,),
    "yarn_beta_slow": (1.0,),
    "yarn_ext_factor": (-1.0,),
    "yarn_orig_ctx": (0,),
}
_CACHE_TYPES = {0: "f32", 1: "f16", 8: "q8_0"}  # ggml's numbers, which llama_cpp takes


@dataclass(frozen=True)
class ModelOptions:
    """Arguments of ``LazyModel`` beside the path.

    Attributes:
        n_ctx: tokens the context can hold; 0 is the length the model was trained with.
        n_batch: accepted for ``llama_cpp``'s sake; a prompt is always read in pieces of ``n_ubatch``, and an
            ``n_batch`` below it makes them that small.
        n_ubatch: tokens computed at once while a prompt is read.
        n_threads: threads while answering; None is the number of physical cores.
        n_threads_batch: threads while reading; None is ``n_threads``.
        n_gpu_layers: layers on GPUs, the output layer among them; -1 or ``"all"``, or ``"auto"``: as many as fit
            into the memory that is free there, and none where there is no GPU.
        n_gpu_layers_draft: of the draft, likewise; None is as many as of the model, and none where the model lies on
            other machines.
        device: names of the devices to use (``lazygguf chat --list-devices``), with commas or as a list; None is
            every GPU, ``"none"`` the CPU alone.
        rpc_servers: ``"HOST:PORT"`` of machines that run ``lazygguf rpc-server``, with commas or as a list. Their
            devices come before the local ones.
        placement: which layers go to the GPU where not all do: ``"work"``, those that see the most tokens under the
            keep schedule, or ``"last"``, the last ones as llama.cpp does. Without a schedule both are the same.
        use_mmap: map the file instead of reading it.
        weights: ``"fast"`` multiplies with our kernels for this CPU (``LAZYGGUF_ISA`` names a lesser instruction set)
            where there is one for a matrix's type. Results do not depend on how a prompt is cut into calls and
            ubatches. The layers' matrices are copied into the kernels' layout, as llama.cpp repacks its own.
            ``"as-is"`` uses ggml's kernels only: the logits are llama.cpp's to the bit. A draft always has the fast
            ones.
        keep: ``"auto"``, ``"off"`` (dense), a spelling such as ``"10:0.3,13:0.08"``, a profile's path
            (``.json``), or a ``KeepSchedule``.
        max_revive: pruned tokens brought back per decode step; None is the schedule's own, -1 no limit.
        draft: a smaller model that reads prompts first and says what of them is worth reading: a GGUF file, or a
            ``LazyModel``, which must stay open as long. It works with a pruning point before layer 0
            (``keep="-1:0.2"``, what ``"auto"`` is with a draft). It does not run where it would not save time: for a
            model less than 3 times as large, and for prompts below ``min_prompt``; ``stats.draft_note`` says why.
        scoring: how the draft scores: a profile's path or a ``ScoringProfile``; None is the draft file's own, else a
            shipped one.
        second_look: share of the context's tokens that may be read on top of ``keep`` where the draft's choice is not
            enough to answer; 0 never reads more.
        headings: a regular expression; lines whose begin it matches (``r"#+ "``: Markdown's headings) are always read
            when a draft chooses.
        seed: makes the answers repeatable, of the same calls in the same order; None or -1 draws new ones. A seed
            given with a call makes that one's answer repeatable.
        type_k: type of the K cache, ``"f16"`` (also None), ``"f32"`` or ``"q8_0"``, or ggml's number of one.
        type_v: type of the V cache, likewise.
        chat_template: a Jinja template used instead of the model's own.
        verbose: llama.cpp's log lines, how the weights lie in memory and where the layers are go to stderr.
        progress_callback: called while a prompt is read with tokens read and tokens to read; what it raises
            stops the reading, is raised, and leaves the model as it was.
    """

    n_ctx: int = 0
    n_batch: int = 512
    n_ubatch: int = 512
    n_threads: Optional[int] = None
    n_threads_batch: Optional[int] = None
    n_gpu_layers: Union[int, str] = 0
    n_gpu_layers_draft: Union[int, str, None] = None
    device: Union[str, Sequence[str], None] = None
    rpc_servers: Union[str, Sequence[str], None] = None
    placement: str = "work"
    use_mmap: bool = True
    weights: str = "fast"
    keep: KeepArgument = "auto"
    max_revive: Optional[int] = None
    draft: Union[str, os.PathLike[str], LazyModel, None] = None
    scoring: Union[str, ScoringProfile, None] = None
    second_look: float = 0.05
    headings: Optional[str] = None
    seed: Optional[int] = None
    type_k: str = "f16"
    type_v: str = "f16"
    chat_template: Optional[str] = None
    verbose: bool = False
    progress_callback: Optional[ProgressCallback] = None

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError with the name, the value and what was expected."""
        for name, (least, most) in _INT_RANGES.items():
            if getattr(self, name) is not None or name not in _NONE_ALLOWED:
                self._set(name, integer(name, getattr(self, name), least, most))
        if self.max_revive is not None:
            self._set("max_revive", integer("max_revive", self.max_revive, -1, 2**31 - 1, also=", or None"))
        for name in ("type_k", "type_v"):
            self._set(name, _cache_type(name, getattr(self, name)))
        for name in ("use_mmap", "verbose"):
            self._set(name, flag(name, getattr(self, name)))
        if not isinstance(self.weights, str) or self.weights not in ("fast", "as-is"):
            raise ValueError(f'weights is {self.weights!r}, expected "fast" or "as-is"')
        if not isinstance(self.placement, str) or self.placement not in PLACEMENTS:
            raise ValueError(f"placement is {self.placement!r}, expected one of {', '.join(PLACEMENTS)}")
        check_request(layer_count(self.n_gpu_layers), device_names(self.device), parse_servers(self.rpc_servers))
        self._check_draft()
        checked_callback("progress_callback", self.progress_callback)

    def _set(self, name: str, value: Any) -> None:
        """Puts a checked value in the place of what was given, such as a NumPy number."""
        object.__setattr__(self, name, value)

    def _check_draft(self) -> None:
        if self.draft is not None and not hasattr(self.draft, "as_draft"):
            path_text("draft", self.draft, " or a LazyModel")
        if self.n_gpu_layers_draft is not None:
            layer_count(self.n_gpu_layers_draft, "n_gpu_layers_draft")
            if not isinstance(self.draft, (str, os.PathLike)):
                raise ValueError("n_gpu_layers_draft is given, but no draft is opened: give the path of one")
        share = as_number(self.second_look)
        if share is None or not 0 <= share <= 1:
            raise ValueError(f"second_look is {self.second_look!r}, expected a share in [0, 1]")
        self._set("second_look", share)
        compile_headings(self.headings)


def refuse_other(given: Mapping[str, Any]) -> None:
    """Raises ValueError for an argument that ``LazyModel`` does not have, or for what it does not do."""
    for name, values in _FIXED.items():
        if name in given and not any(is_same(given[name], value) for value in values):
            raise ValueError(
                f"{name} is {given[name]!r}, expected {' or '.join(map(repr, values))}: lazygguf does nothing else"
            )
    other = [name for name in given if name not in _FIXED]
    refuse_unknown(other, [f.name for f in fields(ModelOptions)], "LazyModel argument")


def checked_callback(name: str, callback: Any) -> Any:
    """The callback, or None. Raises TypeError for what cannot be called."""
    if callback is not None and not callable(callback):
        raise TypeError(f"{name} is {repr(callback)[:60]}, expected a function, or None")
    return callback


def _cache_type(name: str, value: Any) -> str:
    """A cache type's name; llama_cpp's numbers and None stand for names too."""
    number = as_integer(value)
    named = "f16" if value is None else value if number is None else _CACHE_TYPES.get(number)
    if not isinstance(named, str) or named not in _CACHE_TYPES.values():
        raise ValueError(f"{name} is {value!r}, expected one of f16, f32, q8_0, or ggml's number of one (1, 0, 8)")
    return named
