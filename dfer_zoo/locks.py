"""One process a folder: what keeps two of them from writing the same files at the same time."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfer_zoo.errors import InputError

LOCK = ".lock"
"""In the folder: who holds it, for the message. It stays there; what counts is the system's lock on it."""


@contextmanager
def alone_in(folder: Path, doing: str, lock: str = LOCK) -> Iterator[None]:
    """Hold a folder against other processes; where the system or the file system knows no locks, hold nothing.

    The lock is the process' own: the system takes it back when the process ends, however it ends, and the processes
    that it forks, such as a loader's, do not hold it. Nor does it keep the same process from entering twice.

    Args:
        folder: to hold; made if it is not there.
        doing: what is done in it, for the message to the other process, such as ``trained``.
        lock: name of the file, where only a part of the folder is to be held.

    Raises:
        InputError: another process holds it, or nothing can be written in it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / lock).open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}. Choose another folder.") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                holder = file.read() or "another process"
                raise InputError(
                    f"{folder} is being {doing} by {holder}. Wait until it ends, or end it; then the same words "
                    "continue."
                ) from None
        else:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
