"""A draft model on the command line of a tool: what -md, -ngld and --second-look come to."""

from __future__ import annotations

import argparse
from typing import Any

from lazygguf.files.model_file import ModelFile
from lazygguf.model.parts import draft_obstacle


def draft_options(args: argparse.Namespace, model_path: str) -> dict[str, Any]:
    """The options as arguments of ``LazyModel``.

    Raises:
        ValueError: the draft would not run, since the model is not large enough for it.
        OSError, ModelFileError: it cannot be read.
    """
    if args.model_draft is not None:
        obstacle = draft_obstacle(args.model_draft, ModelFile.read(model_path))
        if obstacle:
            raise ValueError(f"-md {args.model_draft}: {obstacle}")
    return {
        "draft": args.model_draft,
        "n_gpu_layers_draft": args.n_gpu_layers_draft,
        "second_look": args.second_look,
    }
