"""Two processes give what one gives: predictions, gradients, weights. On CPU, each run in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from conftest import write_clips
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from dfer_zoo import runs
from dfer_zoo.data import Clips
from dfer_zoo.data.base import Batch
from dfer_zoo.data.batches import ClipBatches
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.models import HDF, M3DFEL, MICACL, Baseline, DFERModel, micacl
from dfer_zoo.nets.hdf import MeanOverDevices
from dfer_zoo.runs import EvaluationWriter, LeftOut

TIMEOUT = 300
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
TINY = {"pretrained": False, "warmup_epochs": 0, "lr": 1e-3}
MODELS = {
    "Baseline": lambda: Baseline("r3d_18", frames=4, width=8, **TINY),
    "M3DFEL": lambda: M3DFEL(width=8, ial=0.1, **TINY),
    "MICACL": lambda: MICACL(width=8, recompute=True, **TINY),
    "HDF": lambda: HDF(frames=4, size=32, width=16, depth_factor=0.5, dropout=0.0, **TINY),
    "HDF without SAM": lambda: HDF(frames=4, size=32, width=16, depth_factor=0.5, dropout=0.0, rho=0.0, **TINY),
}


class FixedClips(L.LightningDataModule):
    """Two global batches of 8 random clips; each process gets its consecutive share."""

    seed, class_counts = 0, [50, 20, 10, 10, 5, 3, 2]
    labels = ([0, 0, 3, 6, 3, 1, 0, 2], [4, 0, 3, 6, 3, 1, 0, 4])

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(0)
        video = torch.randint(0, 256, (2, 8, 3, self.frames, 32, 32), generator=generator, dtype=torch.uint8)
        size = 8 // self.trainer.world_size
        share = slice(self.trainer.global_rank * size, (self.trainer.global_rank + 1) * size)
        batches = [
            Batch(clips[share], torch.tensor(labels)[share], list("abcdefgh")[share], {})
            for clips, labels in zip(video, self.labels, strict=True)
        ]
        return DataLoader(batches, batch_size=None)


class Recorder(L.Callback):
    """Write down the gradients of every pass, the logged losses, and weights and running statistics in the end."""

    def __init__(self, out: Path, name: str) -> None:
        self.out = out
        self.name = name
        self.gradients: list[Tensor] = []
        self.losses: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, model: DFERModel, *_: object) -> None:
        self.gradients.append(flat(p.grad for p in model.parameters()))

    def on_train_batch_end(self, trainer: L.Trainer, model: DFERModel, *_: object) -> None:
        terms = trainer.callback_metrics
        self.losses.append(torch.stack([terms[name] for name in sorted(terms) if name.startswith("train_")]))

    def on_train_end(self, trainer: L.Trainer, model: DFERModel) -> None:
        state = flat(p.detach() for p in (*model.parameters(), *model.buffers()))
        content = {"gradients": self.gradients, "losses": self.losses, "state": state}
        torch.save(content, self.out / f"{self.name} {trainer.world_size}-{trainer.global_rank}.pt")


def flat(tensors) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).clone()


def normalise(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """Do what torch's SyncBatchNorm does on GPUs; it refuses tensors of the CPU."""
    axes, shape = [axis for axis in range(x.ndim) if axis != 1], (1, -1, *[1] * (x.ndim - 2))
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, square = MeanOverDevices.apply(torch.stack([x.mean(axes), x.square().mean(axes)]))
        variance = square - mean.square()
        count = dist.get_world_size() * x.numel() / x.shape[1]
        with torch.no_grad():
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
    scale = (norm.weight / (variance + norm.eps).sqrt()).view(shape)
    return (x - mean.view(shape)) * scale + norm.bias.view(shape)


def train(out: str) -> None:
    """Train each model two steps in one process, then in two with BatchNorm synchronised, all in float64."""
    micacl.VIEW_DROPOUT = 0.0  # each process draws its own
    nn.SyncBatchNorm.forward = normalise
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None  # it refuses SyncBatchNorm on the CPU
    for (name, make), devices in product(MODELS.items(), (1, 2)):
        torch.manual_seed(0)
        model = make()
        for parameter in model.parameters():  # away from zeros, by which parts of the network begin switched off
            parameter.data += 0.05 * torch.randn_like(parameter)
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            devices=devices,
            strategy="auto" if devices == 1 else "ddp_fork",
            sync_batchnorm=True,
            precision="64-true",
            callbacks=[Recorder(Path(out), name)],
            **QUIET,
        )
        trainer.fit(model, FixedClips(model.hparams.frames))


def evaluate(root: str, out: str) -> None:
    """Test in one process, then in two, with the same random weights.

    In float64: batches of other sizes are added up in another order, which the float32 logits written do not show.
    """
    data_options = {"frames": 4, "size": 16, "batch_size": 8, "workers": 0}
    for devices, strategy in ((1, "auto"), (2, "ddp_fork")):
        torch.manual_seed(0)
        model = Baseline("r3d_18", frames=4, width=8, pretrained=False)
        trainer = L.Trainer(
            accelerator="cpu",
            devices=devices,
            strategy=strategy,
            precision="64-true",
            callbacks=[EvaluationWriter(Path(out), f"{devices}")],
            **QUIET,
        )
        scores = trainer.test(model, Clips(root, **data_options), verbose=False)[0]
        (Path(out) / f"{devices}.json").write_text(json.dumps(scores))


class Counted(LeftOut):
    """Write down what each device knows of the clips left out."""

    def on_train_end(self, trainer: L.Trainer, model: DFERModel) -> None:
        self.path.with_name(f"{trainer.global_rank}.txt").write_text("\n".join(sorted(self.reasons)))


def leave_out(root: str, out: str) -> None:
    """Train on clips of which one in the first batch of each of two processes is damaged."""
    options = {"frames": 4, "size": 32, "batch_size": 4, "workers": 0, "on_error": "skip"}
    table = Clips(root, **options).clips("train")
    for place in ClipBatches(table["label"].to_numpy(), 4, training=True).order()[:2]:
        for frame in (Path(root) / table["name"][place]).iterdir():
            frame.write_bytes(b"")
    runs.MOST_LEFT_OUT = 1.0
    model = Baseline("r3d_18", frames=4, width=8, **TINY)
    callbacks = [Counted(Path(out))]
    L.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_fork", callbacks=callbacks, **QUIET).fit(
        model, Clips(root, **options)
    )


def run_alone(*args: str) -> None:
    """Run this file with the words given; end the whole process group if it hangs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # a fork of a process with OpenMP threads may hang
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, *args],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        shown, _ = process.communicate(timeout=TIMEOUT)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, shown[-3000:]


def test_two_processes_predict_every_clip_once_as_one_does(tmp_path: Path) -> None:
    """Of 101 clips, which two processes cannot share evenly."""
    root = tmp_path / "clips"
    rows = [f"{number:03},{EMOTIONS[number % 7]},test\n" for number in range(101)]
    for row, video in zip(rows, np.random.default_rng(0).integers(256, size=(101, 4, 16, 16, 3)), strict=True):
        folder = root / row[:3]
        folder.mkdir(parents=True)
        for number, frame in enumerate(video):
            cv2.imwrite(str(folder / f"{number}.png"), frame)
    (root / "clips.csv").write_text("".join(["path,label,split\n", *rows]))
    run_alone("evaluate", str(root), str(tmp_path))
    one, two = (pd.read_csv(tmp_path / "evaluations" / f"{devices}.csv", dtype={"clip": str}) for devices in (1, 2))
    assert one["clip"].tolist() == [f"{number:03}" for number in range(101)]
    assert len(one[list(EMOTIONS)].drop_duplicates()) == 101
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    scores = [(tmp_path / f"{devices}.json").read_text() for devices in (1, 2)]
    assert scores[0] == scores[1]
    right = one[list(EMOTIONS)].to_numpy().argmax(1) == one["label"]
    assert json.loads(scores[0]) == pytest.approx(
        {"test_war": right.mean(), "test_uar": right.groupby(one["label"]).mean().mean()}
    )


def test_each_of_two_processes_knows_what_both_have_left_out(tmp_path: Path) -> None:
    """So that both stop after the same batch where it is too much."""
    run_alone("leave_out", str(write_clips(tmp_path / "clips")), str(tmp_path))
    listed = pd.read_csv(tmp_path / "left_out.csv")["clip"]
    assert len(listed) == 2
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text().split("\n") == sorted(listed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `Recorder` wrote of all models."""
    out = tmp_path_factory.mktemp("trained")
    run_alone("train", str(out))
    return out


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_train_as_one_does(name: str, trained: Path) -> None:
    """Batches of 4 in two processes against one of 8: every part sees all 8 clips, but for dropout, which is off."""
    one, first, second = (torch.load(trained / f"{name} {rank}.pt") for rank in ("1-0", "2-0", "2-1"))
    assert torch.equal(first["state"], second["state"])
    assert len(one["gradients"]) == len(first["gradients"]) == (4 if name == "HDF" else 2)  # SAM passes twice
    for ours, theirs in zip(first["gradients"], one["gradients"], strict=True):
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm()
    for devices in (first, second):
        torch.testing.assert_close(devices["losses"], one["losses"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first["state"], one["state"], rtol=1e-9, atol=1e-9)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "evaluate": evaluate, "leave_out": leave_out}[sys.argv[1]](*sys.argv[2:])
