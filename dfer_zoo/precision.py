"""The precision in which a machine trains fastest without harm."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from dfer_zoo.nets.convolutions import use_clip_convolutions


def choose_precision(accelerator: str = "auto") -> Literal["bf16-mixed", "32-true"]:
    """Return ``bf16-mixed`` where the device computes bf16 in hardware and its gradients are right, else ``32-true``.

    Elsewhere bf16 is emulated, many times slower than float32.

    Args:
        accelerator: as in Lightning's Trainer.
    """
    device = "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
    if device == "cuda":
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        in_hardware = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return "bf16-mixed" if in_hardware and least_cosine(device) > 0.999 else "32-true"


def least_cosine(device: str) -> float:
    """Return the least cosine between the gradients of a convolution in bf16 and in float32.

    Weight gradients have been wrong for some numbers of frames, which no loss shows; see `dfer_zoo.nets.convolutions`.

    Args:
        device: such as ``cpu``.
    """
    cosines = []
    with torch.random.fork_rng(devices=[]):  # a run's own random numbers stay what they are
        for frames in (1, 2, 3, 4, 8):
            for groups in (1, 16):
                convolution = nn.Conv3d(16, 16, 3, padding=1, groups=groups, bias=False)
                use_clip_convolutions(convolution)
                x = torch.randn(2, 16, frames, 8, 8).to(device, memory_format=torch.channels_last_3d)
                gradients = []
                for dtype in (torch.float32, torch.bfloat16):
                    convolution.to(device, dtype, memory_format=torch.channels_last_3d).zero_grad()
                    y = convolution(x.to(dtype))
                    y.backward(torch.linspace(-9, 9, y.numel(), device=device).cos().view_as(y).to(dtype))
                    gradients.append(convolution.weight.grad.float().flatten())
                cosines.append(F.cosine_similarity(*gradients, dim=0))
    return torch.stack(cosines).nan_to_num(-1.0).min().item()
