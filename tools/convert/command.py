"""``lazygguf convert``: a Llama or Qwen checkpoint becomes a GGUF file that runs.

A thin main: plan, say what will happen, write, verify, print the line that runs it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Optional

import gguf

from lazygguf.errors import ModelFileError

from ..atomic_file import atomic_output, check_space, check_target, scratch_file, shown_bytes
from ..progress_bar import byte_bar, say, step_bar
from ..quantize.command import QuantizeOptions, run_quantizer
from ..quantize.quant_types import QuantType, quant_type
from .hf import plan_hf
from .hf_weights import has_weights
from .meta import plan_meta, shard_names
from .plan import ModelPlan
from .vocab.trial import try_vocab
from .writer import (
    OUTTYPES,
    check_against_plan,
    check_written,
    data_bytes,
    header_bytes,
    load_metadata,
    resolve_auto,
    write_gguf,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``lazygguf convert``."""
    parser.add_argument("source", metavar="SRC", type=Path, help="Hugging Face folder, or Meta folder with .pth files")
    parser.add_argument(
        "--outfile",
        metavar="FILE",
        type=Path,
        help="file to write, {ftype} in it becomes the type (default: named after the model, in SRC)",
    )
    parser.add_argument(
        "--outtype",
        choices=[*OUTTYPES, "auto"],
        default="auto",
        help="type of the matrices (default auto: the checkpoint's own 16-bit type)",
    )
    parser.add_argument("--quantize", metavar="TYPE", help="then quantize, such as Q4_K_M")
    parser.add_argument("--vocab-only", action="store_true", help="write the tokenizer and no weights")
    parser.add_argument("--dry-run", action="store_true", help="check everything, say the sizes, write nothing")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--ctx", metavar="N", type=int, help="context length, where the files do not tell it")
    parser.add_argument("--name", help="the model's name in the file")
    parser.add_argument("--pre", metavar="NAME", help="tokenizer.ggml.pre, for a BPE tokenizer that is not known")
    parser.add_argument("--rope-scale", metavar="N", type=float, help="rope factor of a Meta Llama 3.1 or later")


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf convert``; the exit code is 0 or an exception comes."""
    kind = _check_arguments(args)
    plan = make_plan(args.source, args.ctx, args.pre, args.rope_scale, args.vocab_only)
    try_vocab(plan)
    outtype = resolve_auto(args.outtype, plan.tensors)
    metadata = load_metadata(plan, args.name)
    target = _target(args, metadata, outtype, kind)
    _describe(plan, target, outtype, kind)
    if not args.dry_run:
        check_target(target, args.force)
    size = header_bytes(plan) + data_bytes(plan, outtype)
    check_space(target.parent, size + (_quantized_bytes(plan, kind) if kind else 0))  # both files are there for a while
    if args.dry_run:
        return 0
    with atomic_output(target, args.force) as scratch:
        if kind is None:
            is_finite = _write(plan, scratch, outtype, metadata)
        else:
            with scratch_file(target.with_name(f"{target.name}.{outtype}")) as unquantized:
                is_finite = _write(plan, unquantized, outtype, metadata)
                _quantize(unquantized, scratch, kind)
    print(f"wrote {target} ({shown_bytes(target.stat().st_size)})", file=sys.stderr)
    if not is_finite:
        say("note: no line that runs it: with such weights it cannot answer; get the checkpoint again")
    elif not args.vocab_only:
        if not plan.vocab.chat_template:
            say("note: the folder has no chat template: chat needs one, by --chat-template")
        print(f"lazygguf chat -m {shlex.quote(str(target))}")
    return 0


def _check_arguments(args: argparse.Namespace) -> Optional[QuantType]:
    if args.ctx is not None and args.ctx <= 0:
        raise ValueError(f"--ctx {args.ctx}: expected a number of tokens above 0")
    if args.rope_scale is not None and not args.rope_scale > 0:
        raise ValueError(f"--rope-scale {args.rope_scale}: expected a factor above 0")
    if args.quantize is None:
        return None
    if args.vocab_only:
        raise ValueError("--quantize with --vocab-only: a vocabulary has no weights to quantize")
    return quant_type(args.quantize)


def make_plan(
    source: Path, n_ctx: Optional[int], pre: Optional[str], rope_scale: Optional[float], vocab_only: bool
) -> ModelPlan:
    """The plan for a folder of either kind.

    Raises:
        NotADirectoryError, FileNotFoundError: source is no folder.
        ModelFileError, UnsupportedModelError: the folder holds no whole model of a supported kind.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such folder")
    if not source.is_dir():
        hint = "lazygguf quantize takes GGUF files" if source.suffix == ".gguf" else f"give its folder, {source.parent}"
        raise NotADirectoryError(f"{source}: a file, expected the folder of a checkpoint; {hint}")
    is_hf = (source / "config.json").is_file()
    shards = shard_names(source)
    if shards and not (is_hf and has_weights(source)):
        if pre is not None:
            raise ValueError(f"--pre {pre}: a Meta folder's tokenizer is known; the option is for tokenizer.json")
        return plan_meta(source, n_ctx, rope_scale, vocab_only)
    if rope_scale is not None:
        raise ValueError(f"--rope-scale {rope_scale:g}: config.json tells it; the option is for Meta folders")
    if is_hf:
        return plan_hf(source, n_ctx, pre, vocab_only)
    if vocab_only and (source / "params.json").is_file():
        return plan_meta(source, n_ctx, rope_scale, vocab_only)
    raise ModelFileError(
        f"{source}: neither a Hugging Face folder (config.json) nor a Meta folder (consolidated.NN.pth, params.json)"
    )


def _target(args: argparse.Namespace, metadata: gguf.Metadata, outtype: str, kind: Optional[QuantType]) -> Path:
    """The output's path: --outfile with {ftype} filled in, or the usual name of such a model in SRC."""
    label = kind.name if kind is not None else outtype.upper()
    if args.outfile is not None:
        path: Path = args.outfile
        for key in ("ftype", "outtype"):
            filled = path.name.replace(f"{{{key}}}", label.lower()).replace(f"{{{key.upper()}}}", label)
            path = path.with_name(filled) if path.name else path
        return path
    known = metadata if args.name is None else gguf.Metadata()
    origin = (metadata.name, known.basename, known.finetune, known.version)
    if args.vocab_only:
        name = gguf.naming_convention(*origin, None, None, model_type="vocab")
    else:
        name = gguf.naming_convention(*origin, metadata.size_label, label)
    return Path(args.source) / f"{name}.gguf"


def _quantized_bytes(plan: ModelPlan, kind: QuantType) -> int:
    return header_bytes(plan) + int(plan.n_params * kind.bits / 8)


def _describe(plan: ModelPlan, target: Path, outtype: str, kind: Optional[QuantType]) -> None:
    hp = plan.hparams
    size = header_bytes(plan) + data_bytes(plan, outtype)
    lines = [
        f"{plan.source}: {hp.arch}, {hp.n_layer} layers, {plan.n_params / 1e6:,.1f} M parameters, "
        f"{hp.n_ctx} tokens of context",
        f"tokenizer: {plan.vocab.model}, pre {plan.vocab.pre}, {len(plan.vocab.tokens)} tokens",
        *(f"note: {note}" for note in plan.notes),
        f"output: {target}, {outtype}, about {shown_bytes(size)}",
    ]
    if kind is not None:
        lines[-1] = (
            f"output: {target}, {kind.name}, about {shown_bytes(_quantized_bytes(plan, kind))} "
            f"(by way of {outtype}, {shown_bytes(size)} until it is done)"
        )
    print("\n".join(lines), file=sys.stderr)


def _write(plan: ModelPlan, path: Path, outtype: str, metadata: gguf.Metadata) -> bool:
    """Writes the file and says which tensors hold values that are no numbers; whether none does."""
    with byte_bar("converting", data_bytes(plan, outtype)) as progress:
        not_finite = write_gguf(plan, path, outtype, metadata, progress)
    for name, count in not_finite.items():
        say(
            f"note: {name} holds {count:,} values that are NaN or infinite: what the model answers is not to be trusted"
        )
    check_against_plan(path, plan, outtype)
    return not not_finite


def _quantize(source: Path, target: Path, kind: QuantType) -> None:
    options = QuantizeOptions(ftype=kind.ftype, only_copy=kind.name == "COPY", allow_requantize=True)
    with step_bar("quantizing") as progress:
        run_quantizer(source, target, options, progress)
    check_written(target)
