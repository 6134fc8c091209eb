"""Options that every command which runs a model has, spelled as llama.cpp spells them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Union

from ..model.devices import PLACEMENTS, layer_count


def add_file_argument(group: Any) -> None:
    """Adds -m."""
    group.add_argument("-m", "--model", metavar="FILE", help="a GGUF file (default: the demo model)")


NO_DRAFT = "none"


def add_compute_arguments(group: Any, no_draft: str = "") -> None:
    """Adds -md, -ngld, --second-look, -t, -ub, and what names devices: -ngl, -dev, --rpc and --list-devices.

    ``no_draft`` says in the help what is done without -md.
    """
    group.add_argument(
        "-md",
        "--model-draft",
        metavar="FILE",
        help=f'a smaller model that reads first and chooses what --keep "-1:..." reads{no_draft}',
    )
    group.add_argument(
        "-ngld",
        "--n-gpu-layers-draft",
        "--gpu-layers-draft",
        type=_layers,
        metavar="N",
        help="layers of the draft on GPUs (as -ngl)",
    )
    group.add_argument(
        "--second-look",
        type=float,
        default=0.05,
        metavar="X",
        help="share of the tokens that may be read on top where the draft's choice is not enough; 0: none (0.05)",
    )
    group.add_argument("-t", "--threads", type=int, metavar="N", help="threads (default: physical cores)")
    group.add_argument("-ub", "--ubatch-size", type=int, default=512, metavar="N", help="tokens read at once (512)")
    group.add_argument(
        "-ngl",
        "--n-gpu-layers",
        "--gpu-layers",
        type=_layers,
        default=0,
        metavar="N",
        help='layers on GPUs, the output layer among them, "all", or "auto": as many as fit (0)',
    )
    group.add_argument("-dev", "--device", metavar="NAMES", help='devices to use, with commas, or "none" (every GPU)')
    group.add_argument("--rpc", metavar="HOST:PORT", help="servers that lend their devices, with commas")
    group.add_argument("--list-devices", action="store_true", help="list the devices, with --rpc theirs too, and end")


def add_placement_argument(group: Any) -> None:
    """Adds --placement, for commands that open a model for one keep schedule."""
    group.add_argument(
        "--placement",
        choices=PLACEMENTS,
        default="work",
        help='which layers go to GPUs where not all do: "work", those that see the most tokens, or "last" (work)',
    )


def compute_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of ``add_compute_arguments`` are as arguments of ``LazyModel``."""
    return {
        "n_threads": args.threads,
        "n_ubatch": args.ubatch_size,
        "n_batch": max(args.ubatch_size, 512),
        "n_gpu_layers": args.n_gpu_layers,
        "device": args.device,
        "rpc_servers": args.rpc,
    }


def _layers(text: str) -> Union[int, str]:
    """-ngl: a number, "all" (which is -1) or "auto"."""
    try:
        return text if text == "auto" else layer_count(text if text == "all" else int(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of layers, 'all' or 'auto'") from None


def check_least(args: argparse.Namespace, least: Mapping[str, int]) -> None:
    """Raises ValueError for an option whose value is below its least; None is no value."""
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and value < bound:
            raise ValueError(f"--{name.replace('_', '-')} {value}: expected {bound} or more")
