"""What a model costs: parameters, multiply-accumulates, memory, speed."""

import platform
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.plugins.precision import Precision
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from dfer_zoo import models
from dfer_zoo.data import Batch, DFERData, dfew, ferv39k
from dfer_zoo.errors import InputError
from dfer_zoo.models import DFERModel
from dfer_zoo.nets.convolutions import ClipConv3d
from dfer_zoo.processes import begin
from dfer_zoo.recipes import Recipe, read_recipes
from dfer_zoo.results import WIDE
from dfer_zoo.runs import quiet_trainer, write_text

COUNTER = "torch.utils.flop_counter.FlopCounterMode / 2"

TRAINING_CLIPS = {"dfew": sum(dfew.TRAIN_COUNTS[1]), "ferv39k": sum(ferv39k.TRAIN_COUNTS)}
"""Clips of the real sets' own training parts; of DFEW the first fold's."""


def count_macs(model: DFERModel, frames: int, size: int, padding: bool = True) -> int:
    """Count the multiply-accumulates of one clip's forward pass, with torch's FlopCounterMode (two FLOPs each).

    Convolutions and matrix products count; normalization, activation and pooling do not.

    Args:
        model: the model; left in the mode it was in.
        frames: T.
        size: side of the frames, in pixels.
        padding: count a convolution's products with its zero padding, as everybody does. Kernels skip them, and on
            small maps they are most: of the three temporal taps on a single frame, two see only padding.
    """
    clip = torch.zeros(1, 3, frames, size, size, dtype=torch.uint8, device=model.device)
    was_training = model.training
    model.eval()
    mapping = {} if padding else {torch.ops.aten.convolution: flops_inside}
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    sliced = [module for module in model.modules() if padding and isinstance(module, ClipConv3d)]
    for module in sliced:
        module.__class__ = nn.Conv3d  # ours leave out the taps that see only padding
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the flag's own tf32 setting
            # neither oneDNN's LSTM nor the CPU's kernel of attention is known to the counter
            with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
                model(clip)
    finally:
        for module in sliced:
            module.__class__ = ClipConv3d
    model.train(was_training)
    return counter.get_total_flops() // 2


def flops_inside(
    x_shape: list[int],
    w_shape: list[int],
    bias: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    *_: object,
    out_shape: list[int],
    **__: object,
) -> int:
    """Return a convolution's FLOPs without products with padding; called by FlopCounterMode with aten's arguments."""
    products = x_shape[0] * w_shape[0] * w_shape[1]
    for size, kernel, out, step, pad, gap in zip(
        x_shape[2:], w_shape[2:], out_shape[2:], stride, padding, dilation, strict=True
    ):
        place = np.arange(out)[:, None] * step + np.arange(kernel) * gap - pad
        products *= int(((place >= 0) & (place < size)).sum())
    return 2 * products


def clips_per_second(
    model: DFERModel, frames: int, size: int, precision: Precision, batch: int = 8, seconds: float = 2.0
) -> float:
    """Measure inference on the model's device, in clips a second: the median of several passes.

    Args:
        model: the model; left in the mode it was in.
        frames: T.
        size: side of the frames, in pixels.
        precision: the Trainer's plugin for the precision to measure in.
        batch: clips in a pass.
        seconds: how long to measure.
    """
    video = torch.randint(256, (batch, frames, size, size, 3), dtype=torch.uint8, device=model.device)
    video = video.permute(0, 4, 1, 2, 3)
    was_training = model.training
    model.eval()
    times = []
    with torch.inference_mode(), precision.forward_context():
        model(video)  # buffers are allocated and kernels chosen
        start = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < seconds:
            times.append(_seconds(lambda: model(video), model.device))
    model.train(was_training)
    return batch / float(np.median(times))


def measure_cost(model: DFERModel, data: DFERData, precision: Precision) -> dict[str, Any]:
    """Return what the tables show of a model's cost, with the names of the units.

    Args:
        model: the model.
        data: what it was trained on.
        precision: the Trainer's plugin for the precision that it was trained in.
    """
    return {
        "parameters": sum(parameter.numel() for parameter in model.net.parameters()),
        "gmacs_per_clip": count_macs(model, data.frames, data.size) / 1e9,
        "counter": COUNTER,
        "inference_clips_per_second": clips_per_second(model, data.frames, data.size, precision),
        "precision": precision.precision,
        "device": str(model.device),
        "frames": data.frames,
        "size": data.size,
    }


class HeldBatches(L.LightningDataModule):
    """The same batch of random pixels for every step, so that nothing but the step is measured.

    Args:
        frames: T.
        size: side of the frames, in pixels.
        batch: clips in it; the classes come in pairs, which contrastive losses need.
        steps: times that it comes.
    """

    seed = 0

    def __init__(self, frames: int, size: int, batch: int, steps: int) -> None:
        super().__init__()
        pixels = np.random.default_rng(self.seed).integers(256, size=(batch, frames, size, size, 3), dtype=np.uint8)
        labels = torch.arange(batch) // 2 % len(DFERData.label_names)
        self.batch = Batch(torch.from_numpy(pixels).permute(0, 4, 1, 2, 3), labels, [str(i) for i in range(batch)], {})
        self.steps = steps
        self.class_counts = [1] * len(DFERData.label_names)

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.batch] * self.steps, batch_size=None)


class Rounds(L.Callback):
    """Behind every training step, time one inference pass and the machine's peak in the same precision.

    What the machine does besides slows all three of a round down alike, so the share of the peak is steadier than the
    speed itself. The first round, in which buffers are allocated and kernels chosen, is not kept.

    Args:
        progress: called after every round.

    Attributes:
        training: seconds of each step: forward, backward, optimizer; both passes of SAM.
        inference: seconds of each pass.
        peak: FLOPs a second, see `peak_flops`.
        forward_passes: of one step.
    """

    def __init__(self, progress: Callable[[], None]) -> None:
        self.training: list[float] = []
        self.inference: list[float] = []
        self.peak: list[float] = []
        self.forward_passes = 0
        self.progress = progress

    def on_train_batch_start(self, trainer: L.Trainer, model: DFERModel, batch: Batch, batch_idx: int) -> None:
        self.forward_passes = 0
        self.hook = model.net.register_forward_hook(self._count)
        self.start = _now(model.device)

    def _count(self, *_: object) -> None:
        self.forward_passes += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, model: DFERModel, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        training = _now(model.device) - self.start
        self.hook.remove()
        model.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            inference = _seconds(lambda: model(batch.video), model.device)
        model.train()
        peak = peak_flops(model.device, _dtype(trainer.precision))
        if batch_idx > 0:
            self.training.append(training)
            self.inference.append(inference)
            self.peak.append(peak)
        self.progress()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure how many FLOPs a second the device reaches in multiplying matrices.

    It is the faster of a square matrix product and a convolution without padding, each the better of two, since torch
    has them done by different libraries: on AMD, MKL's product in 32-bit floats runs at half of oneDNN's speed.
    """
    side = 1024 if device.type == "cpu" else 8192
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    kind = {"device": device, "dtype": dtype}
    maps = torch.ones(8, 64, 8, 28, 28, **kind).to(memory_format=torch.channels_last_3d)
    kernel = torch.ones(64, 64, 3, 3, 3, **kind).to(memory_format=torch.channels_last_3d)
    outputs = 8 * 64 * 6 * 26 * 26
    with torch.inference_mode():
        product = min(_seconds(lambda: matrix @ matrix, device) for _ in range(2))
        convolution = min(_seconds(lambda: torch.conv3d(maps, kernel), device) for _ in range(2))
    return max(2 * side**3 / product, 2 * outputs * kernel[0].numel() / convolution)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = _now(device)
    work()
    return _now(device) - start


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if "bf16" in precision else torch.float16 if "16" in precision else torch.float32


def train_steps(model: DFERModel, held: HeldBatches, precision: str, *callbacks: L.Callback) -> None:
    """Train on a held batch with Lightning's Trainer, as `fit` does, leaving nothing behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about so short a training
        quiet_trainer(precision=precision, max_epochs=1, callbacks=list(callbacks)).fit(model, held)


def step_memory(recipe: Recipe, precision: str, batch: int) -> int | None:
    """Measure what a training takes in memory, in bytes: weights, gradients, optimizer, activations, buffers.

    To be called in a process of its own. On a GPU it is ``torch.cuda.max_memory_allocated``; on a CPU it is the peak of
    the process' resident memory above what it was after a tiny training, which has loaded the libraries' code.

    Returns:
        The bytes, None where the system does not tell (it is read in Linux' ``/proc``).
    """
    tiny = models.Baseline("r3d_18", frames=2, width=4, pretrained=False)
    train_steps(tiny, HeldBatches(2, 32, 2, steps=1), precision)
    before = _memory("VmRSS")
    model = recipe.model()
    train_steps(model, HeldBatches(*recipe.shape, batch, steps=2), precision)  # the first allocates AdamW's moments
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return None if before is None else _memory("VmHWM") - before


def _memory(line: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return int(status.read_text().partition(f"{line}:")[2].split()[0]) * 1024  # "VmRSS:   123 kB"


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of this module in a fresh process and return what it returns.

    Raises:
        BrokenProcessPool: the process was killed.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # the libraries are imported once for all processes
    with ProcessPoolExecutor(1, mp_context=context, initializer=begin) as pool:
        return pool.submit(function, *arguments).result()


def measure_steps(recipe: Recipe, precision: str, batch: int, rounds: int, progress: Callable[[], None]) -> dict:
    """Return the cost of training and inference in one precision: speeds, shares of the machine's peak, memory.

    Shares are multiply-accumulates done, without those on padding, over what `peak_flops` says the machine can do
    in the same time. A training step counts as three forward passes, twice that with SAM.

    Args:
        recipe: whose model.
        precision: as Lightning names it.
        batch: clips in a pass.
        rounds: measured; medians are returned.
        progress: called after every round.

    Raises:
        InputError: the system ended the process that measures memory.
    """
    try:
        memory = in_own_process(step_memory, recipe, precision, batch)
    except BrokenProcessPool as error:
        raise InputError(
            f"The system ended a training step of {recipe.name} with {batch} clips in {precision}, most likely for "
            "want of memory. Use a smaller --batch."
        ) from error
    clock = Rounds(progress)
    model = recipe.model()
    train_steps(model, HeldBatches(*recipe.shape, batch, rounds + 1), precision, clock)
    macs_done = count_macs(model, *recipe.shape, padding=False)
    peak = np.array(clock.peak)

    def speed_and_share(seconds: list[float], forward_passes: int) -> tuple[float, float]:
        rates = batch / np.array(seconds)
        return float(np.median(rates)), float(np.median(2 * macs_done * forward_passes * rates / peak))

    train_speed, train_share = speed_and_share(clock.training, 3 * clock.forward_passes)
    speed, share = speed_and_share(clock.inference, 1)
    return {
        "model": recipe.name,
        "frames": recipe.shape[0],
        "size": recipe.shape[1],
        "parameters": sum(parameter.numel() for parameter in model.net.parameters()),
        "gmacs_per_clip": count_macs(model, *recipe.shape) / 1e9,
        "gmacs_without_padding": macs_done / 1e9,
        "counter": COUNTER,
        "precision": precision,
        "train_memory_bytes": memory,
        "memory_counter": "max_memory_allocated" if torch.cuda.is_available() else "peak RSS over a tiny training's",
        "train_clips_per_second": train_speed,
        "train_share_of_peak": train_share,
        "inference_clips_per_second": speed,
        "inference_share_of_peak": share,
        "peak_gflops": float(np.median(peak)) / 1e9,
        "batch": batch,
        "rounds": rounds,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def data_clips_per_second(data: DFERData, batches: int) -> float:
    """Measure how many training clips a second this process decodes and augments, read once before.

    Args:
        data: the data module.
        batches: measured, or as many as there are; the median counts.
    """
    for _ in range(2):  # the second time the files are in the system's cache
        speeds = []
        before = time.perf_counter()
        for batch in islice(data.loader("train"), batches):
            speeds.append(len(batch.name) / (time.perf_counter() - before))
            before = time.perf_counter()
    return float(np.median(speeds))


def cost_table(rows: pd.DataFrame) -> Table:
    """Return the rich table of a profile, one row a model and precision."""
    first = rows.iloc[0]
    peaks = ", ".join(
        f"{gflops:.0f} GFLOP/s in {name}" for name, gflops in rows.groupby("precision")["peak_gflops"].median().items()
    )
    table = Table(
        title=f"{first['device']}, {first['threads']} threads; batch {first['batch']}; medians of {first['rounds']} "
        f"rounds; peak {peaks}",
        caption="peak %: share of the faster of a matrix product and a convolution, products with padding not counted\n"
        "data: training clips that one process decodes and augments\n"
        f"hours: the recipe's epochs on {first['training_clips']} clips, with validation, if the data keep up",
    )
    for column in ("model", "clip", "params M", "GMACs", "precision", "GiB", "train\nclips/s", "peak %"):
        table.add_column(column, justify="left" if column in ("model", "precision") else "right", no_wrap=True)
    for column in ("infer\nclips/s", "peak %", "data\nclips/s", "train\nhours"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        table.add_row(
            row["model"],
            f"{row['frames']}x{row['size']}px",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['gmacs_per_clip']:.3g}",
            row["precision"],
            "-" if pd.isna(row["train_memory_bytes"]) else f"{row['train_memory_bytes'] / 2**30:.2f}",
            f"{row['train_clips_per_second']:.3g}",
            f"{100 * row['train_share_of_peak']:.0f}",
            f"{row['inference_clips_per_second']:.3g}",
            f"{100 * row['inference_share_of_peak']:.0f}",
            f"{row['data_clips_per_second']:.3g}",
            f"{row['training_hours']:.3g}",
        )
    return table


def profile(
    model: str | None = None,
    data: Literal["dfew", "ferv39k", "clips"] = "dfew",
    root: Path | None = None,
    batch: int = 4,
    rounds: int = 7,
    quick: bool = False,
    experiments: Path = Path("experiments"),
    out: Path = Path("runs/profile"),
) -> None:
    """Measure what the recipes cost on this machine: parameters, MACs, memory, speed of training, inference and data.

    Every round times one training step, one inference pass and the machine's peak in the same process and
    precision; medians over the rounds are shown, the first round is left out. Memory is measured in a process of its
    own. 32-bit floats are always measured, the recipe's own precision as well where it is another.

    Args:
        model: names of experiments/model with commas between; all by default.
        data: the dataset's kind.
        root: its folder; by default a small set of generated clips, and hours are given for the real set.
        batch: clips in a pass.
        rounds: to take medians over.
        quick: the recipes for 2 CPU cores instead of the papers'.
        experiments: folder of the yaml files.
        out: folder for profile.csv.

    Raises:
        InputError: an unknown model, or numbers out of range.
    """
    for name, value in (("batch", batch), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"{name} is {value}; allowed: 1 or more.")
    recipes = read_recipes(Path(experiments), model.split(",") if model else [], data, quick)
    if root is None and data == "clips":
        raise InputError("Generated clips come in the layouts dfew and ferv39k. Name the folder of yours with --root.")
    published = None if root else TRAINING_CLIPS[data]
    with TemporaryDirectory() as temporary:
        if root is None:
            from dfer_zoo.synthetic import synthesize

            root = synthesize(data, Path(temporary) / "clips", clips=35, size=64 if quick else 224, frames=(16, 24))
        rows = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task("", total=sum(len(recipe.precisions) for recipe in recipes) * (rounds + 1))
            for recipe in recipes:
                dataset = recipe.data(root, batch)
                speed = data_clips_per_second(dataset, rounds)
                clips = published or len(dataset.read_split("train"))
                for precision in recipe.precisions:
                    bar.update(task, description=f"{recipe.name} {precision}")
                    row = measure_steps(recipe, precision, batch, rounds, lambda: bar.advance(task))
                    speeds = row["train_clips_per_second"], row["inference_clips_per_second"]
                    hours = recipe.hours(clips, dataset.val_fraction, *speeds)
                    rows.append(
                        {**row, "data_clips_per_second": speed, "training_clips": clips, "training_hours": hours}
                    )
                    write_text(Path(out) / "profile.csv", pd.DataFrame(rows).to_csv(index=False))
    console = Console(width=max(Console().width, WIDE))
    console.print(cost_table(pd.DataFrame(rows)))
    console.print(f"Table: {Path(out) / 'profile.csv'}", markup=False)
