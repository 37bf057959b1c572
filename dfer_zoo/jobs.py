"""Trainings, each a process of its own: what is done, what is missing, and running it."""

import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dfer_zoo.cli import identify
from dfer_zoo.errors import InputError
from dfer_zoo.processes import end_with_parent
from dfer_zoo.runs import choose_version, is_finished, versions

LOG = "fit.log"
"""In the run's folder: what its process has printed."""

GRACE = 30.0
"""Seconds that a process has for ending after it was asked to."""


class Training(NamedTuple):
    """A training that somebody wants."""

    method: str
    """Name in tables."""
    fold: int | None
    """None where the dataset has no folds."""
    seed: int
    """Of everything random."""
    words: tuple[str, ...]
    """Of the command line, ``fit`` first."""


@dataclass(frozen=True)
class Job:
    """A training, and what there is of it.

    Args:
        training: what is wanted.
        run: the run folder: the finished run of the same configuration, or the one that `words` would make or continue.
        config: the configuration, as the text of its ``config.yaml``.
        others: runs of the same name, with the keys in which their configuration differs.
    """

    training: Training
    run: Path
    config: str
    others: tuple[tuple[Path, tuple[str, ...]], ...]

    @property
    def name(self) -> str:
        """Method, data and version."""
        return f"{self.run.parent.name}/{self.run.name}"

    @property
    def finished(self) -> bool:
        """Whether it was trained to the end and tested."""
        return is_finished(self.run)

    @property
    def command(self) -> list[str]:
        """The words of its process."""
        return [sys.executable, "-m", "dfer_zoo", *self.training.words]

    @cached_property
    def epochs(self) -> int | None:
        """The epochs of the whole training; None where something else ends it."""
        epochs = yaml.safe_load(self.config)["trainer"]["max_epochs"]
        return None if epochs in (None, -1) else epochs

    @cached_property
    def takes_every_gpu(self) -> bool:
        """Whether it trains on all the GPUs that it sees."""
        return yaml.safe_load(self.config)["trainer"].get("devices", "auto") in ("auto", -1, "-1")

    @property
    def epochs_done(self) -> int:
        """Count the epochs in its ``metrics.csv``: those with a validation."""
        try:
            with (self.run / "metrics.csv").open(encoding="utf-8", newline="") as file:
                return sum(bool(row.get("val_war")) for row in csv.DictReader(file))
        except FileNotFoundError:
            return 0

    @property
    def state(self) -> str:
        """Say in a few words what there is of it."""
        if self.finished:
            return "finished"
        if self.epochs_done:
            return f"interrupted after {self.epochs_done} epochs"
        return "; ".join(["new", *(f"{run.name} differs in {', '.join(keys[:3])}" for run, keys in self.others)])


def plan(trainings: Sequence[Training]) -> list[Job]:
    """Find the run of each training, finished or not.

    Raises:
        InputError: words that `fit` would refuse, or two trainings that ask for the same run.
    """
    jobs: list[Job] = []
    identities = identify([training.words for training in trainings])
    for training, identity in zip(trainings, identities, strict=True):
        known = versions(identity)
        same = [run for run, different in known if not different and is_finished(run)]
        run = same[0] if same else choose_version(identity)[0]
        others = tuple((other, tuple(keys)) for other, keys in known if keys)
        jobs.append(Job(training, run, identity.config, others))
    taken: dict[Path, Job] = {}
    for job in jobs:
        if taken.setdefault(job.run, job) is not job:
            both = f"{taken[job.run].training.method} and {job.training.method}"
            raise InputError(f"{both} would both be {job.run}. Leave --method and other options of one run out.")
    return jobs


def job_list(jobs: Sequence[Job]) -> str:
    """Return the commands of what is not finished, one a line, quoted for sh."""
    return "".join(f"{shlex.join(job.command)}\n" for job in jobs if not job.finished)


class Stopped(Exception):
    """Somebody asked this process to end; the argument is the signal."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Stopped`."""

    def stop(number: int, _: object) -> None:
        raise Stopped(signal.Signals(number))

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def visible_gpus() -> list[str]:
    """Return the GPUs that a new process would see, each as CUDA_VISIBLE_DEVICES names it."""
    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(count)] if listed is None else listed.split(",")[:count]


def start(job: Job, environment: dict[str, str]) -> subprocess.Popen:
    """Start the process of a job; what it prints is added to the log in its run folder."""
    job.run.mkdir(parents=True, exist_ok=True)
    with (job.run / LOG).open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal reaches this process alone, which ends the others
            preexec_fn=end_with_parent(),
        )


def end(processes: Sequence[subprocess.Popen]) -> None:
    """End processes and all that they have started: first a request, which a training obeys after a batch."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_missing(jobs: Sequence[Job], parallel: int = 1, poll: float = 0.5) -> list[Job]:
    """Run the jobs that are not finished; continue those that were interrupted.

    Several at once share the CPU's threads, and take one GPU each if they would take all; where there are fewer GPUs
    than processes, some share one. A job that fails does not stop the others. A signal that ends this process ends
    those of the jobs, and they can be continued.

    Args:
        jobs: in the order in which they are started.
        parallel: processes at once.
        poll: seconds between two looks at them.

    Returns:
        The jobs that failed.

    Raises:
        Stopped: by a signal.
    """
    waiting = [job for job in jobs if not job.finished]
    if not waiting:
        return []
    environment = dict(os.environ)
    gpus = visible_gpus() if parallel > 1 else []
    if parallel > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // parallel))
    running: dict[Job, subprocess.Popen] = {}
    taken: dict[Job, str] = {}
    failed: list[Job] = []
    display = Display(waiting)
    with stoppable(), display.progress:
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    job = waiting.pop(0)
                    display.started(job)
                    if job.finished:  # by another process, since the beginning
                        display.ended(job, 0)
                    elif gpus and job.takes_every_gpu:
                        taken[job] = min(gpus, key=list(taken.values()).count)
                        running[job] = start(job, environment | {"CUDA_VISIBLE_DEVICES": taken[job]})
                    else:
                        running[job] = start(job, environment)
                time.sleep(poll)
                for job, process in list(running.items()):
                    display.update(job)
                    if process.poll() is not None:
                        del running[job]
                        taken.pop(job, None)
                        if not job.finished:
                            failed.append(job)
                        display.ended(job, process.returncode)
        finally:
            end(list(running.values()))
    return failed


class Display:
    """A line for all runs together, and one for each that is running, with its epochs and an estimate of the rest.

    Args:
        jobs: those to be run.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        # no thread of its own, which a fork could catch holding a lock
        self.progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False, speed_estimate_period=3600)
        self.count = len(jobs)
        self.known = {job: job.epochs_done for job in jobs}
        self.done = 0
        self.tasks: dict[Job, TaskID] = {}
        total = sum(job.epochs for job in jobs) if all(job.epochs for job in jobs) else None
        done = sum(self.known.values())
        self.all = self.progress.add_task("", total=total, completed=done)
        self._refresh()

    def started(self, job: Job) -> None:
        """Add the line of a job."""
        self.tasks[job] = self.progress.add_task(escape(job.name), total=job.epochs, completed=self.known[job])
        self._refresh()

    def update(self, job: Job) -> None:
        """Count the epochs that a job has done."""
        self.known[job] = max(job.epochs_done, self.known[job])
        self._refresh()

    def ended(self, job: Job, status: int) -> None:
        """Take the line of a job away and say how it ended."""
        self.done += 1
        self.progress.remove_task(self.tasks.pop(job))
        if job.finished:
            self.progress.console.print(f"finished {escape(job.name)}")
        else:
            log = job.run / LOG
            tail = "\n".join(f"  {line}" for line in log.read_text("utf-8", "replace").splitlines()[-12:])
            self.progress.console.print(
                f"[bold red]failed[/] {escape(job.name)} (status {status}), {escape(str(log))}:"
            )
            self.progress.console.print(tail, markup=False, highlight=False)
        self._refresh()

    def _refresh(self) -> None:
        for job, task in self.tasks.items():
            self.progress.update(task, completed=self.known[job])
        text = f"{self.done} of {self.count} runs"
        self.progress.update(self.all, description=text, completed=sum(self.known.values()))
        self.progress.refresh()
