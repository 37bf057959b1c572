"""Small datasets in the real on-disk layouts, made of random pictures."""

import gc
import os
import shutil
import zlib
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from dfer_zoo import jobs
from dfer_zoo.__main__ import main
from dfer_zoo.data.ferv39k import SCENES
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.jobs import Job
from dfer_zoo.models import DFERModel
from dfer_zoo.profile import clips_per_second
from dfer_zoo.provenance import describe_clips
from dfer_zoo.runs import evaluate, load_data, write_json, write_text

collect_ignore = ["benchmarks"]

torch.set_num_threads(1)  # the nets here are so small that threads only wait for each other


def write_clip(folder: Path, names: list[str], color: int, size: int = 24) -> None:
    """Write frames whose red is the class and whose green rises with time, so that a test can read both back."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        frame = np.zeros((size, size, 3), np.uint8)
        frame[..., 2] = 30 * color + 20
        frame[..., 1] = 8 * number
        cv2.imwrite(str(folder / name), frame, [cv2.IMWRITE_JPEG_QUALITY, 100])


def write_dfew(root: Path, clips: int = 70, frames: int = 12) -> Path:
    """Write `clips` clips, classes in turn, the fold of clip i being i // 7 % 5."""
    labels = [i % len(EMOTIONS) for i in range(clips)]
    for i, label in enumerate(labels):
        names = [f"{n}.jpg" for n in range(1, frames + 1)]
        write_clip(root / "Clip" / "clip_224x224" / f"{i + 1:05d}", names, label)
    for fold in range(1, 6):
        for part in ("train", "test"):
            folder = root / "EmoLabel_DataSplit" / f"{part}(single-labeled)"
            folder.mkdir(parents=True, exist_ok=True)
            chosen = [i for i in range(clips) if (i // 7 % 5 == fold - 1) == (part == "test")]
            rows = "".join(f"{i + 1},{labels[i] + 1}\n" for i in chosen)
            (folder / f"set_{fold}.csv").write_text("video_name,label\n" + rows)
    return root


def write_ferv39k(root: Path, clips: int = 4, frames: int = 10) -> Path:
    """Write `clips` clips of each emotion in each of two scenes; the last one of each is for test."""
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for scene in SCENES[:2]:
        for label, emotion in enumerate(EMOTIONS):
            for i in range(clips):
                name = f"{scene}/{emotion}/{i:04d}"
                numbers = [n if n < 5 else n + 95 for n in range(frames)]  # a gap: 0 1 2 3 4 100 101 ...
                write_clip(root / "2_ClipsforFaceCrop" / name, [f"{n}.jpg" for n in numbers], label)
                rows["test" if i == clips - 1 else "train"].append(f"{name} {emotion}\n")
    folder = root / "4_setups" / "All_scenes"
    folder.mkdir(parents=True)
    for part, lines in rows.items():
        (folder / f"{part}_All.csv").write_text("".join(lines))
    return root


def write_clips(root: Path, clips: int = 28, frames: int = 8) -> Path:
    """Write folders of frames and the csv that lists them; every fourth is for test."""
    lines = ["path,label,split\n"]
    for i in range(clips):
        label = i % len(EMOTIONS)
        write_clip(root / f"clip {i}", [f"{n}.jpg" for n in range(frames)], label)
        lines.append(f"clip {i},{EMOTIONS[label]},{'test' if i // 7 == 3 else 'train'}\n")
    (root / "clips.csv").write_text("".join(lines))
    return root


def write_video(path: Path, frames: list[np.ndarray], codec: str = "mpeg4", rate: int = 10) -> Path:
    """Write frames of one size as a video of `rate` frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path


def fit_quietly(model: L.LightningModule, data: L.LightningDataModule, **trainer: object) -> L.Trainer:
    """Train on the CPU, leaving nothing on disk or on the screen; return the Trainer."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(accelerator="cpu", **dict.fromkeys(quiet, False), **trainer)
    trainer.fit(model, data)
    return trainer


def write_checkpoint(path: Path, model: DFERModel, frames: int = 4, size: int = 32) -> Path:
    """Write what a training leaves of a model, without the training."""
    data = SimpleNamespace(label_names=EMOTIONS, frames=frames, size=size, generated=True)
    model.trainer = SimpleNamespace(datamodule=data)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    model.on_save_checkpoint(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def dfew_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dfew(tmp_path_factory.mktemp("dfew"))


@pytest.fixture(scope="session")
def ferv39k_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ferv39k(tmp_path_factory.mktemp("ferv39k"))


@pytest.fixture(scope="session")
def clips_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def trained_run(dfew_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small net on `dfew_root`, trained for an epoch and tested; not to be written to."""
    from dfer_zoo.__main__ import main

    experiments = Path(__file__).parent.parent / "experiments"
    runs = tmp_path_factory.mktemp("runs")
    configs = (f"--config={experiments / name}.yaml" for name in ("trainer", "data/dfew", "model/r3d_18", "quick"))
    small = ("--data.size=32", "--data.workers=0", "--model.width=8", "--trainer.max_epochs=1")
    quiet = (
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.precision=32-true",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfer_zoo.profile.clips_per_second", lambda *_: 1.0)
        assert main(["fit", *configs, f"--data.root={dfew_root}", f"--runs={runs}", *small, *quiet]) == 0
    return runs / "r3d_18-dfew" / "fold1-seed0"


@pytest.fixture
def own_run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of `trained_run` that a test may write to."""
    return shutil.copytree(trained_run, tmp_path / "r3d_18-dfew" / "fold1-seed0")


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the garbage collections that statsmodels starts at every correction: half a second each beside torch."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@pytest.fixture
def own_dfew(tmp_path: Path) -> Path:
    """A DFEW that a test may damage."""
    return write_dfew(tmp_path / "dfew", frames=2)  # few: one is made for every test


@pytest.fixture
def own_ferv39k(tmp_path: Path) -> Path:
    """A FERV39k that a test may damage."""
    return write_ferv39k(tmp_path / "ferv39k", frames=2)


@pytest.fixture
def own_clips(tmp_path: Path) -> Path:
    """A folder of clips and its csv that a test may damage."""
    return write_clips(tmp_path / "clips", frames=2)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each folder has been listed, in whatever way."""
    counter: Counter = Counter()

    def counting(listing):
        def listed(folder="."):
            counter[os.fspath(folder)] += 1
            return listing(folder)

        return listed

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    return counter


def content(frames: np.ndarray) -> tuple[int, list[int]]:
    """Return the class and the frame numbers that `write_clip` wrote into ``(T, H, W, 3)`` RGB frames."""
    red, green = (np.asarray(frames, float)[..., channel].mean(axis=(1, 2)) for channel in (0, 1))
    labels = {round(value) for value in (red - 20) / 30}
    assert len(labels) == 1, "frames of several classes in one clip"
    return labels.pop(), [round(value) for value in green / 8]


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start where `make` starts."""
    monkeypatch.chdir(Path(__file__).parents[1])


class Done:
    """A process that has ended."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None: ...

    def wait(self, timeout: float) -> None: ...


def pretended_run(job: Job, rules: tuple[str, ...] = ("best_val",)) -> None:
    """Write what a run leaves, its predictions random."""
    write_text(job.run / "config.yaml", job.config)
    data = load_data(job.run)
    test = data.clips("test")
    start = {"clips": describe_clips(data), "git": {"commit": "0" * 40, "changed": True}, "precision": "32-true"}
    write_json(job.run / "provenance.json", {"starts": [start]})
    for number, rule in enumerate(rules):
        key = zlib.crc32(job.training.method.encode())
        rng = np.random.default_rng((job.training.fold or 0, job.training.seed, number, key))
        table = pd.DataFrame(rng.normal(size=(len(test), 7)), columns=list(EMOTIONS))
        table.insert(0, "clip", test["name"].to_numpy())
        table.insert(1, "label", test["label"].to_numpy())
        path = job.run / "evaluations" / f"test-{rule}.csv"
        write_text(path, table.to_csv(index=False))
        write_json(path.with_suffix(".json"), evaluate(table))
    write_json(job.run / "cost.json", {})


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let runs be pretended instead of trained; return the names of those started."""
    started: list[str] = []

    def start(job: Job, _: dict[str, str]) -> Done:
        started.append(job.name)
        pretended_run(job, ("best_val", *yaml.safe_load(job.config)["rules"]))
        return Done(0)

    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    return started


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let runs be trained in this process; return the names of those started."""
    started: list[str] = []

    def start(job: Job, _: dict[str, str]) -> Done:
        started.append(job.name)
        return Done(main(list(job.training.words)))

    monkeypatch.setattr(jobs, "start", start)
    return started


@pytest.fixture
def quick_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the speed of a model for a moment only."""
    monkeypatch.setattr("dfer_zoo.profile.clips_per_second", partial(clips_per_second, seconds=0.0))
