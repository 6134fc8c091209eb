"""Files that exist whole or not at all.

Owns the temporary name, the rename, and what may be overwritten. A caller that fails in any way, Ctrl-C
included, leaves nothing behind and an existing file untouched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path


def check_target(path: Path, force: bool) -> None:
    """Raises OSError unless a GGUF file can be made at path."""
    parent = path.parent
    if not parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the output's folder does not exist", str(parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the output is a folder, expected a file name", str(path))
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "the output exists and is no regular file", str(path))
    if path.exists() and not force:
        raise FileExistsError(errno.EEXIST, "the output exists; --force replaces it", str(path))
    if path.exists() and not _is_replaceable(path):
        raise FileExistsError(errno.EEXIST, "the output exists and is no GGUF file; it is not replaced", str(path))
    if not os.access(parent, os.W_OK):
        raise PermissionError(
            errno.EACCES, "no right to write into the output's folder; --outfile names another", str(parent)
        )


def _is_replaceable(path: Path) -> bool:
    """Only a GGUF file or an empty one: --force with a wrong name must not cost a checkpoint."""
    with open(path, "rb") as file:
        return file.read(4) in (b"GGUF", b"")


def check_space(folder: Path, needed: int) -> None:
    """Raises OSError when the disk has fewer free bytes than needed."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{shown_bytes(needed)} are needed, {shown_bytes(free)} are free on this disk",
            str(folder),
        )


@contextlib.contextmanager
def scratch_file(beside: Path) -> Iterator[Path]:
    """A temporary name in the same folder, gone at the end whatever happens."""
    path = beside.with_name(f".{beside.name}.{os.getpid()}.tmp")
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


@contextlib.contextmanager
def atomic_output(path: Path, force: bool) -> Iterator[Path]:
    """A temporary name that becomes path when the block ends without an exception."""
    check_target(path, force)
    with scratch_file(path) as scratch:
        yield scratch
        check_target(path, force)  # it may have come into being meanwhile
        _sync(scratch)
        os.replace(scratch, path)
        _sync(path.parent)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown_bytes(n: int) -> str:
    """1234567 -> "1.2 MB"."""
    size = float(n)
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{n} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
