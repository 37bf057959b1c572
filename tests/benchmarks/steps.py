"""Recipes as models with a batch to train on, and the same models as PyTorch alone would have them."""

import copy
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from dfer_zoo.data.base import Batch
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.models import DFERModel
from dfer_zoo.nets.convolutions import ClipConv3d
from dfer_zoo.nets.hdf import DAM
from dfer_zoo.optim import SAM

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def recipe(name: str, quick: bool = False) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return what the yaml files say of a model: its class, its options and the data's."""
    files = [EXPERIMENTS / "model" / f"{name}.yaml"]
    if quick:
        files += [EXPERIMENTS / "quick.yaml", EXPERIMENTS / "quick" / f"{name}.yaml"]
    model, data = {}, {}
    for path in filter(Path.is_file, files):
        content = yaml.safe_load(path.read_text())
        model |= content.get("model", {}).get("init_args", {})
        data |= content.get("data", {}).get("init_args", {})
    class_path = yaml.safe_load(files[0].read_text())["model"]["class_path"]
    return class_path, model, data


def build(name: str, quick: bool = False, **options: Any) -> DFERModel:
    """Return a recipe's model, from scratch and for use without a Trainer."""
    class_path, model, data = recipe(name, quick)
    module, _, cls = class_path.rpartition(".")
    kind = getattr(import_module(module), cls)
    shape = {key: data[key] for key in ("frames", "size") if key in inspect.signature(kind).parameters}
    torch.manual_seed(0)
    built = kind(**{**shape, **model, "pretrained": False, **options})
    for key, parameter in built.named_parameters():
        if key.endswith("norm_c.weight"):  # X3D's blocks start as the identity
            nn.init.constant_(parameter, 0.5)
    built.class_counts.fill_(10)
    built.gather = lambda tensor: tensor
    return built


def random_batch(clips: int, frames: int, size: int) -> Batch:
    """Return clips as a loader makes them: uint8, channels last in memory."""
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (clips, frames, size, size, 3), generator=generator, dtype=torch.uint8)
    labels = torch.arange(clips) // 2 % len(EMOTIONS)
    return Batch(video.permute(0, 4, 1, 2, 3), labels, [str(i) for i in range(clips)], {})


class PlainDAM(DAM):
    """DAM as its equations are printed."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend to positions and frames."""
        gate_s = self.frequency(x.mean(2))[:, :, None]
        gate_t = self.temporal(x.mean((3, 4)), x.amax((3, 4)))[..., None, None]
        x_s, x_t = gate_s * x + x, gate_t * x + x
        scores = self.frequency_score(x_s.mean((2, 3, 4))), self.temporal_score(x_t.mean((2, 3, 4)))
        weight_s, weight_t = torch.cat(scores, 1).softmax(1)[:, :, None, None, None, None].unbind(1)
        return weight_s * x_s + weight_t * x_t


def as_plain_pytorch(model: DFERModel) -> DFERModel:
    """Return a copy with PyTorch's own convolutions and everything contiguous."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, ClipConv3d):
            module.__class__ = nn.Conv3d
        elif isinstance(module, DAM):
            module.__class__ = PlainDAM
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model


def stepper(
    model: DFERModel, batch: Batch, optimizer: torch.optim.Optimizer | None = None, bf16: bool = False
) -> Callable[[], object]:
    """Return a function that takes one training step, without a Trainer.

    Args:
        model: in training mode.
        batch: the clips of every step.
        optimizer: AdamW with the model's options where not given.
        bf16: autocast, as Lightning does for ``bf16-mixed``.
    """
    optimizer = optimizer or DFERModel.optimizer(model)
    if isinstance(optimizer, SAM):
        model.optimizers = lambda use_pl_optimizer=True: optimizer

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.losses(batch)["loss"]
        loss.backward()
        return loss

    return lambda: optimizer.step(closure)
