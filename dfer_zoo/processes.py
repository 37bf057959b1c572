"""Processes that help another: they leave Ctrl-C to it, and do not outlive it."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    initializer: Callable[[], object] | None = None,
    chunksize: int = 1,
) -> Iterator[Result]:
    """Yield what a function returns of each item, in their order.

    Args:
        function: of a module, or a partial of one, so that other processes find it.
        items: its arguments.
        workers: processes at once; with one, this process does it itself.
        initializer: called first in each of the others.
        chunksize: items that are handed over at once.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    # Spawned, not forked: the caller may hold threads of torch or OpenCV, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=begin, initargs=(initializer, os.getpid())
    ) as pool:
        try:
            with ignoring(signal.SIGINT):  # what a process ignores, those that it starts ignore from their first moment
                results = pool.map(function, items, chunksize=chunksize)
            yield from results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def begin(initializer: Callable[[], object] | None = None, parent: int | None = None) -> None:
    """End with the process that has started this one.

    Args:
        initializer: called then.
        parent: number of that process, which may have ended already.
    """
    if (follow := end_with_parent()) is not None:
        follow()
    if parent not in (None, os.getppid()):
        raise SystemExit
    if initializer is not None:
        initializer()


@contextmanager
def ignoring(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal for a moment."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def end_with_parent() -> Callable[[], object] | None:
    """Return what makes a new process end when its parent is killed: on Linux, a request to the kernel."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: little may be done between fork and exec
    return lambda: libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def leave_signals(_: int) -> None:
    """Ignore SIGINT and SIGTERM in a loader's process: a terminal or a cluster sends them to all processes of a run.

    The Trainer's process answers them, and the loader's processes end when it does.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
