"""Files that exist whole or not at all.

Owns the temporary name, the rename, and what may be overwritten. A caller that fails in any way, Ctrl-C
included, leaves nothing behind and an existing file untouched.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from lazygguf.cli.printable import printable
from lazygguf.errors import DISK_FULL
from lazygguf.files.atomic_file import is_empty_or


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
    if path.exists() and not is_empty_or(b"GGUF", path):  # --force with a wrong name must not cost a checkpoint
        raise FileExistsError(errno.EEXIST, "the output exists and is no GGUF file; it is not replaced", str(path))
    if not os.access(parent, os.W_OK):
        raise PermissionError(
            errno.EACCES, "no right to write into the output's folder; --outfile names another", str(parent)
        )


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


def leftovers(path: Path) -> list[Path]:
    """Temporary files beside path of runs that are no more: only a killed process leaves one."""
    found = []
    for entry in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = entry.name.split(".")[-2]
        if pid.isdecimal() and len(pid) < 10 and not _runs(int(pid)):
            found.append(entry)
    return sorted(found)


def _runs(pid: int) -> bool:
    if os.name == "nt":  # where asking a process by signal would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def write_error(path: Path, n_bytes: int) -> Optional[OSError]:
    """Why a file cannot grow by n_bytes; None when it can. For libraries that tell a failed write without its cause."""
    block = bytes(1 << 20)
    try:
        with open(path, "ab", buffering=0) as file:
            while n_bytes > 0:
                n_bytes -= file.write(block)
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None


@contextlib.contextmanager
def atomic_output(path: Path, force: bool) -> Iterator[Path]:
    """A temporary name that becomes path when the block ends without an exception.

    Says on stderr which temporary files an earlier run for this path has left behind.
    """
    check_target(path, force)
    for leftover in leftovers(path):
        size = shown_bytes(leftover.stat().st_size)
        said = f"note: {leftover} ({size}) is left from a run that was killed; it can be deleted"
        print(printable(said), file=sys.stderr)
    with scratch_file(path) as scratch:
        try:
            yield scratch
        except OSError as error:
            if error.errno in DISK_FULL and error.filename is None:
                raise OSError(error.errno, f"{error.strerror}; nothing was left there", str(path.parent)) from error
            raise
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
