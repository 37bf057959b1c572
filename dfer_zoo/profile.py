"""What a model costs: parameters, multiply-accumulates, speed."""

import time
import warnings
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dfer_zoo.data import DFERData
from dfer_zoo.models import DFERModel


def count_macs(model: DFERModel, frames: int, size: int) -> int:
    """Count the multiply-accumulates of one clip's forward pass, with torch's FlopCounterMode (two FLOPs each).

    Convolutions and matrix products count; normalization, activation and pooling do not.

    Args:
        model: the model; left in the mode it was in.
        frames: T.
        size: side of the frames, in pixels.
    """
    clip = torch.zeros(1, 3, frames, size, size, dtype=torch.uint8, device=model.device)
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the flag's own tf32 setting
        with counter, torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):  # oneDNN's LSTM is not counted
            model(clip)
    model.train(was_training)
    return counter.get_total_flops() // 2


def clips_per_second(model: DFERModel, frames: int, size: int, batch: int = 8, seconds: float = 2.0) -> float:
    """Measure inference on the model's device, in clips a second: the fastest of several passes.

    Args:
        model: the model; left in the mode it was in.
        frames: T.
        size: side of the frames, in pixels.
        batch: clips in a pass.
        seconds: how long to measure.
    """
    video = torch.randint(256, (batch, frames, size, size, 3), dtype=torch.uint8, device=model.device)
    video = video.permute(0, 4, 1, 2, 3)
    was_training = model.training
    model.eval()
    times = []
    with torch.inference_mode():
        start = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < seconds:
            before = time.perf_counter()
            model(video)
            if video.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
    model.train(was_training)
    return batch / min(times)


def measure_cost(model: DFERModel, data: DFERData) -> dict[str, Any]:
    """Return what the tables show of a model's cost, with the names of the units."""
    return {
        "parameters": sum(parameter.numel() for parameter in model.net.parameters()),
        "gmacs_per_clip": count_macs(model, data.frames, data.size) / 1e9,
        "counter": "torch.utils.flop_counter.FlopCounterMode / 2",
        "inference_clips_per_second": clips_per_second(model, data.frames, data.size),
        "device": str(model.device),
        "frames": data.frames,
        "size": data.size,
    }
