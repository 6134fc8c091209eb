"""A Python process of our own that runs one module's main().

Owns the command: the parent's own module path, so that no module of the current folder takes the place of one of
ours.
"""

from __future__ import annotations

import sys


def child_command(module: str) -> list[str]:
    """The command that runs ``main()`` of a module and exits with what it returns."""
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; sys.exit(main())",
    ]
