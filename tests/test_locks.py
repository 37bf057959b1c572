"""A folder is held by one process, and by none that has ended."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dfer_zoo.errors import InputError
from dfer_zoo.locks import alone_in

HOLD = """
import os, sys, time
from pathlib import Path
from dfer_zoo.locks import alone_in
with alone_in(Path(sys.argv[1]), "trained", sys.argv[2]):
    child = os.fork()  # as a loader's process; it outlives this one
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@contextmanager
def held(folder: Path, lock: str = ".lock") -> Iterator[subprocess.Popen]:
    """Hold a folder in a process that has forked another; kill both in the end."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), lock], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.kill(child, signal.SIGKILL)


def test_another_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with held(tmp_path / "run") as first:
        for _ in range(2):
            with (
                pytest.raises(
                    InputError, match=rf"run is being trained by process {first.pid} on .*Wait until it ends,"
                ),
                alone_in(tmp_path / "run", "trained"),
            ):
                pass
        first.kill()
        first.wait()
        with alone_in(tmp_path / "run", "trained"):
            assert f"process {os.getpid()} on" in (tmp_path / "run" / ".lock").read_text()


def test_what_was_let_go_can_be_held_again(tmp_path: Path) -> None:
    with alone_in(tmp_path, "packed"):
        pass
    with held(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_holds_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockf(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", lockf)
    with alone_in(tmp_path, "trained"):
        assert (tmp_path / ".lock").read_text() == ""


def test_a_system_without_locks_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with alone_in(tmp_path / "run", "trained"):
        assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="file/run cannot be written: Not a directory"),
        alone_in(tmp_path / "file" / "run", "trained"),
    ):
        pass
