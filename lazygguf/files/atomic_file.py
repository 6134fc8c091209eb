"""A file that takes another one's place whole or not at all, whatever ends the process while it is written.

Owns the temporary name in the same folder, the flush to disk before the rename, and removing what killed processes
left. What is in the file is its writer's business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Union

from ..errors import DISK_FULL


@contextlib.contextmanager
def replaced_file(path: str, magic: bytes) -> Iterator[BinaryIO]:
    """A new file that becomes ``path`` when the block ends without an exception; only its owner can read it.

    While it is written its name begins with a dot and ends with ``.tmp``. A process that is killed leaves that file;
    the next one that writes to the same path removes it.

    Args:
        path: a link is followed. An existing file stays as it is until the new one is on the disk.
        magic: the first bytes of files that may be replaced, since a wrong name must not cost a document.

    Raises:
        OSError: it cannot be written; nothing was left there.
    """
    path = os.path.realpath(path)
    check_replaceable(path, magic)
    folder, name = os.path.split(path)
    _remove_leftovers(folder, name)
    file, scratch = _new_file(folder, name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            check_replaceable(path, magic)  # it may have come into being meanwhile
            os.replace(scratch, path)
        _sync_folder(folder)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
        if isinstance(error, OSError) and error.errno in DISK_FULL and error.filename is None:
            text = f"{error.strerror}; what was saved there before is still there"
            raise OSError(error.errno, text, path) from error
        raise


def check_replaceable(path: str, magic: bytes) -> None:
    """Raises OSError where ``replaced_file`` cannot make a file of this name; arguments as there."""
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "the folder of the file does not exist", folder)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "no right to write into the folder of the file", folder)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, expected a file name", path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file", path)
    if not is_empty_or(magic, path):
        raise FileExistsError(errno.EEXIST, "the file is something else than what would be saved; it is kept", path)


def is_empty_or(magic: bytes, path: Union[str, os.PathLike[str]]) -> bool:
    """Whether a file has nothing in it or begins with these bytes."""
    with open(path, "rb") as file:
        return file.read(len(magic)) in (magic, b"")


def _new_file(folder: str, name: str) -> tuple[BinaryIO, str]:
    """A file of a new name that this process holds a lock on, so that others see that it is being written."""
    while True:
        descriptor, scratch = tempfile.mkstemp(prefix=f".{name[:200]}.", suffix=".tmp", dir=folder)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(os.fdopen(descriptor, "wb"))
            with contextlib.suppress(OSError):  # file systems without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # else another process took it for a leftover before it was locked
                stack.pop_all()
                return file, scratch


def _remove_leftovers(folder: str, name: str) -> None:
    """Files that a killed process left: nobody holds a lock on them."""
    for leftover in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name[:200])}.*.tmp")):
        with contextlib.suppress(OSError), open(leftover, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(leftover)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot, and the file itself is on the disk
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
