"""The PEP 517 build backend: scikit-build-core, after a look whether this machine can compile.

The llama-cpp-python that the native core links against is itself compiled when it is first installed. So the
compiler is looked for before pip starts on that, and its absence is one sentence instead of a CMake log.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from scikit_build_core import build as _build
from scikit_build_core.build import build_sdist, build_wheel, prepare_metadata_for_build_wheel  # noqa: F401

# the same version as in pyproject.toml's dependencies
LLAMA_CPP_PYTHON = "llama-cpp-python==0.3.36"

COMPILERS = ("c++", "g++", "clang++", "cl")
NO_COMPILER = (
    "lazygguf needs a C and a C++17 compiler, and found none. Install one (Debian, Ubuntu: "
    "'apt install g++'; Fedora: 'dnf install gcc-c++'; macOS: 'xcode-select --install') or name it in CXX, "
    "and run pip again."
)


def _check_compiler() -> None:
    named = os.environ.get("CXX", "").split()
    if not any(shutil.which(compiler) for compiler in (*named[:1], *COMPILERS)):
        raise SystemExit(NO_COMPILER)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    _check_compiler()
    return [*_build.get_requires_for_build_wheel(config_settings), LLAMA_CPP_PYTHON]


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    return list(_build.get_requires_for_build_sdist(config_settings))


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    _check_compiler()
    return [*_build.get_requires_for_build_editable(config_settings), LLAMA_CPP_PYTHON]


def build_editable(*args: Any, **kwargs: Any) -> str:
    return str(_build.build_editable(*args, **kwargs))
