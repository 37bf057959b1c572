"""Helpers leave Ctrl-C to the process that has started them, and do not outlive it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dfer_zoo.processes import in_processes

SCRIPT = """
import os
import time
from dfer_zoo.__main__ import COMMANDS, main
from dfer_zoo.processes import in_processes

def nap(seconds: float):
    os.write(1, b"begun,")
    time.sleep(seconds)

def work(seconds: float):
    list(in_processes(nap, [seconds, seconds], 2))

if __name__ == "__main__":
    COMMANDS["work"] = ("__main__:work", "work for a long time")
    raise SystemExit(main(["work", "600"]))
"""


@pytest.fixture
def working(tmp_path: Path):
    """A process, in a group of its own, whose two helpers are at work."""
    script = tmp_path / "work.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.read(12) == "begun,begun,"
    yield process
    process.kill()
    process.communicate()


def helpers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """Return what the process has started; the tracker of shared memory ends by itself when all others have."""
    children = psutil.Process(process.pid).children(recursive=True)
    helpers = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
    assert len(helpers) == 2
    return helpers


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    assert list(in_processes(abs, range(-6, 0), workers, chunksize=2)) == [6, 5, 4, 3, 2, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for it")
def test_helpers_do_not_outlive_a_process_that_is_killed(working):
    helpers = helpers_of(working)
    working.kill()
    assert psutil.wait_procs(helpers, timeout=20)[1] == []


def test_ctrl_c_is_answered_once_and_in_a_line(working):
    helpers = helpers_of(working)
    os.killpg(working.pid, signal.SIGINT)
    time.sleep(0.5)
    for helper in helpers:
        assert helper.is_running()  # it is not theirs; what has begun is done to the end
        helper.kill()
    said = working.communicate(timeout=20)[1]
    assert said.split(".")[0] == "Stopped"
    assert said.count("\n") == 1
    assert working.returncode == 128 + signal.SIGINT
