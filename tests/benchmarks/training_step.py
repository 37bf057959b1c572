"""Training steps against those of plain PyTorch: eager, float32, contiguous.

Run ``python -m tests.benchmarks.training_step [PART ...] [--rounds 5]``; full-size steps take seconds on 2 cores. Set
``OMP_NUM_THREADS`` for another number of threads than the machine has processors.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dfer_zoo.models import DFERModel
from dfer_zoo.nets import NetOutput
from dfer_zoo.optim import SAM
from dfer_zoo.runs import MetricsCSV

from . import alternate, print_ratios
from .steps import as_plain_pytorch, build, random_batch, recipe, stepper


def compare(name: str, clips: int, rounds: int, quick: bool = False, **options: object) -> None:
    """Print the ratios of a recipe's steps to a plain step."""
    _, _, data = recipe(name, quick)
    batch = random_batch(clips, data["frames"], data["size"])
    plain = as_plain_pytorch(build(name, quick, **options))
    hp = plain.hparams
    unfused = torch.optim.AdamW(plain.parameters(), lr=hp.lr, weight_decay=hp.weight_decay)
    variants = {
        "plain": stepper(plain, batch._replace(video=batch.video.contiguous()), unfused),
        "float32": stepper(build(name, quick, **options), batch),
        "bf16": stepper(build(name, quick, **options), batch, bf16=True),
    }
    seconds = alternate(variants, rounds)
    shape = f"{clips} clips of {data['frames']}x{data['size']}x{data['size']}"
    print_ratios(f"Training step of {name}{' (quick)' if quick else ''}, {shape}", seconds, "plain", clips, "clips")


def m3dfel(rounds: int) -> None:
    compare("m3dfel", 4, rounds)


def x3d_s(rounds: int) -> None:
    compare("hdf", 2, rounds, dam=False, dsm=False)


def quick(rounds: int) -> None:
    for name in ("r3d_18", "m3dfel", "micacl"):
        compare(name, 16, rounds, quick=True)
    compare("hdf", 16, rounds, quick=True, dsm=False)


def dam(rounds: int) -> None:
    """What DAM adds to a step of X3D-S."""
    batch = random_batch(2, 16, 160)
    for bf16 in (False, True):
        variants = {
            name: stepper(build("hdf", dam=switch, dsm=False), batch, bf16=bf16)
            for name, switch in (("without DAM", False), ("with DAM", True))
        }
        print_ratios(
            f"DAM in HDF, {'bf16' if bf16 else 'float32'}", alternate(variants, rounds), "with DAM", 2, "clips"
        )


def sam(rounds: int) -> None:
    """SAM's two passes and DSM against a step of AdamW."""
    batch = random_batch(2, 16, 160)
    plain, two_passes = build("hdf", dsm=False), build("hdf")
    hp = two_passes.hparams
    optimizer = SAM(two_passes.parameters(), rho=hp.rho, net=two_passes.net, lr=hp.lr, fused=True)
    variants = {"AdamW": stepper(plain, batch), "SAM": stepper(two_passes, batch, optimizer)}
    print_ratios("SAM in HDF, float32", alternate(variants, rounds), "SAM", 2, "clips")


class Nothing(nn.Module):
    """A net of no cost, which leaves what surrounds it."""

    mean, std = (0.5,) * 3, (0.2,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 7)

    def forward(self, video: Tensor) -> NetOutput:
        """Classify one position."""
        features = video[:, :, 0, 0, 0]
        return NetOutput(self.fc(features), features)


class OneBatch(L.LightningDataModule):
    """The same batch at every step."""

    seed, class_counts = 0, [10] * 7

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.batches = [random_batch(16, 8, 48)] * steps

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)


def timed(run: Callable[[], None]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def lightning(rounds: int, steps: int = 200) -> None:
    """What Lightning's loop adds to each step, as a share of a step of 16 clips at 100 clips/s."""
    data = OneBatch(steps)

    def bare() -> None:
        model = DFERModel(Nothing())
        model.class_counts.fill_(10)
        optimizer = model.optimizer()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1)
        for batch in data.train_dataloader():
            stepper(model, batch, optimizer)()
            schedule.step()

    def fit() -> None:
        with tempfile.TemporaryDirectory() as folder:  # with what the command line adds
            trainer = L.Trainer(
                accelerator="cpu",
                max_epochs=1,
                log_every_n_steps=10,
                logger=[MetricsCSV(Path(folder)), TensorBoardLogger(folder, "run", "0")],
                callbacks=[RichProgressBar(), LearningRateMonitor("step")],
                enable_checkpointing=False,
                enable_model_summary=False,
            )
            trainer.fit(DFERModel(Nothing(), warmup_epochs=0), data)

    taken = [(timed(bare), timed(fit)) for _ in range(rounds + 1)][1:]  # `alternate` has a progress bar of its own
    added = (statistics.median(fitted for _, fitted in taken) - statistics.median(alone for alone, _ in taken)) / steps
    share = added / (16 / 100)
    said = f"Lightning adds {1e3 * added:.1f} ms of wall time to a step, {share:.1%} of one of 16 clips at 100 clips/s."
    Console(soft_wrap=True).print(said)


PARTS = {part.__name__: part for part in (m3dfel, x3d_s, quick, dam, sam, lightning)}


def main() -> None:
    """Run the parts named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for name in words.parts or PARTS:
        PARTS[name](words.rounds)


if __name__ == "__main__":
    main()
