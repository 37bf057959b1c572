"""Two processes give what one gives: predictions, gradients, weights. On CPU, each run in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import pandas as pd
import pytest
import torch
from conftest import write_clips
from torch import Tensor
from torch.utils.data import DataLoader

from dfer_zoo import runs
from dfer_zoo.data import Clips
from dfer_zoo.data.base import Batch
from dfer_zoo.data.batches import ClipBatches
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.models import HDF, M3DFEL, MICACL, Baseline, DFERModel, micacl
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
    """Hold running statistics still, which processes do not share, and write down gradients and weights."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.gradients: list[Tensor] = []

    def on_train_batch_start(self, trainer: L.Trainer, model: DFERModel, *_: object) -> None:
        for module in model.net.modules():
            if any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False)):
                module.eval()

    def on_before_optimizer_step(self, trainer: L.Trainer, model: DFERModel, *_: object) -> None:
        self.gradients.append(flat(p.grad for p in model.parameters()))

    def on_train_end(self, trainer: L.Trainer, model: DFERModel) -> None:
        weights = flat(p.detach() for p in model.parameters())
        loss = trainer.callback_metrics["train_loss"]
        content = {"gradients": self.gradients, "weights": weights, "loss": loss}
        torch.save(content, self.out / f"{trainer.world_size}-{trainer.global_rank}.pt")


def flat(tensors) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).clone()


def train(name: str, out: str) -> None:
    """Train two steps in one process, then in two."""
    micacl.VIEW_DROPOUT = 0.0  # each process draws its own
    for devices, strategy in ((1, "auto"), (2, "ddp_fork")):
        torch.manual_seed(0)
        model = MODELS[name]()
        data = FixedClips(model.hparams.frames)
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            devices=devices,
            strategy=strategy,
            callbacks=[Recorder(Path(out))],
            **QUIET,
        )
        trainer.fit(model, data)


def evaluate(root: str, out: str) -> None:
    """Test in one process, then in two, with the same random weights."""
    data_options = {"frames": 4, "size": 32, "batch_size": 2, "workers": 0}
    for devices, strategy in ((1, "auto"), (2, "ddp_fork")):
        torch.manual_seed(0)
        model = Baseline("r3d_18", frames=4, width=8, pretrained=False)
        writer = EvaluationWriter(Path(out), f"{devices}")
        trainer = L.Trainer(accelerator="cpu", devices=devices, strategy=strategy, callbacks=[writer], **QUIET)
        war = trainer.test(model, Clips(root, **data_options), verbose=False)[0]["test_war"]
        (Path(out) / f"{devices}.war").write_text(str(war))


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
    root = write_clips(tmp_path / "clips", clips=26)  # 5 for test: two processes cannot share them evenly
    run_alone("evaluate", str(root), str(tmp_path))
    one, two = (pd.read_csv(tmp_path / "evaluations" / f"{devices}.csv") for devices in (1, 2))
    assert len(one) == 5
    assert two["clip"].tolist() == one["clip"].tolist() == [f"clip {i}" for i in range(21, 26)]
    # a clip falls into a batch of another size, for which the kernels add in another order
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=1e-5)
    right = (two[list(EMOTIONS)].to_numpy().argmax(1) == two["label"]).mean()
    for devices in (1, 2):
        assert float((tmp_path / f"{devices}.war").read_text()) == pytest.approx(right)


def test_each_of_two_processes_knows_what_both_have_left_out(tmp_path: Path) -> None:
    """So that both stop after the same batch where it is too much."""
    run_alone("leave_out", str(write_clips(tmp_path / "clips")), str(tmp_path))
    listed = pd.read_csv(tmp_path / "left_out.csv")["clip"]
    assert len(listed) == 2
    for rank in range(2):
        assert (tmp_path / f"{rank}.txt").read_text().split("\n") == sorted(listed)


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_train_as_one_does(name: str, tmp_path: Path) -> None:
    """Batches of 4 in two processes against one of 8: the contrastive losses too see all 8 clips."""
    run_alone("train", name, str(tmp_path))
    one, first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in ("1-0", "2-0", "2-1"))
    assert torch.equal(first["weights"], second["weights"])
    assert len(one["gradients"]) == len(first["gradients"]) == (4 if name == "HDF" else 2)  # SAM passes twice
    difference = [(a - b).norm() / a.norm() for a, b in zip(one["gradients"], first["gradients"], strict=True)]
    # the first step differs by float32's rounding alone; the others start from weights that SAM climbed and AdamW moved
    # by lr times the sign of a gradient that may be rounding itself, so they may differ more
    assert difference[0] < 1e-5
    assert max(difference) < 1e-3
    moved = (one["weights"] - first["weights"]).abs()
    assert moved.median() < 1e-6
    assert moved.max() <= 2 * 2 * TINY["lr"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"train": train, "evaluate": evaluate, "leave_out": leave_out}[sys.argv[1]](*sys.argv[2:])
