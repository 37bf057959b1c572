"""Clips per second without gradients against plain PyTorch: eager, float32, contiguous.

Run ``python -m tests.benchmarks.inference [--rounds 5]``.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from dfer_zoo.nets.inference import for_inference

from . import alternate, print_ratios
from .steps import as_plain_pytorch, build, random_batch, recipe


def compare(name: str, clips: int, rounds: int) -> None:
    """Print the ratios of a recipe's net."""
    _, _, data = recipe(name)
    model = build(name).eval()
    video = model.normalize(random_batch(clips, data["frames"], data["size"]).video)
    plain = as_plain_pytorch(model).net
    contiguous, half = video.contiguous(), video.bfloat16()
    folded, folded_half = (for_inference(model.net, video[:1], dtype) for dtype in (torch.float32, torch.bfloat16))

    def autocast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model.net(video).logits

    variants: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain(contiguous).logits,
        "channels last": lambda: model.net(video).logits,
        "BatchNorm folded": lambda: folded(video).logits,
        "bf16 autocast": autocast,
        "BatchNorm folded, bf16": lambda: folded_half(half).logits,
    }
    with torch.inference_mode():
        seconds = alternate(variants, rounds)
    print_ratios(f"Inference of {name}, {clips} clips at once", seconds, "plain", clips, "clips")


def main() -> None:
    """Compare M3DFEL at batch 8 and HDF at batch 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    compare("m3dfel", 8, rounds)
    compare("hdf", 2, rounds)


if __name__ == "__main__":
    main()
