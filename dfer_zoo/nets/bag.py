"""What the multi-instance networks share: a clip as a bag of 3-D instances.

A clip of ``T`` frames is cut into ``N`` consecutive instances of ``T / N`` frames (M3DFEL, Section 3.2).
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from dfer_zoo.errors import InputError
from dfer_zoo.nets.r3d import FULL_WIDTH, R2D, R3D


class NetOutput(NamedTuple):
    """What every net returns."""

    logits: Tensor
    """``(B, K)``, before softmax."""
    features: Tensor
    """``(B, D)``, the clip or bag feature that the classifier saw."""


def split_into_instances(video: Tensor, instances: int) -> Tensor:
    """Cut ``(B, C, T, H, W)`` into consecutive instances ``(B, N, C, T / N, H, W)``.

    Raises:
        InputError: `instances` does not divide the number of frames.

    >>> import torch
    >>> split_into_instances(torch.zeros(2, 3, 16, 8, 8), 4).shape
    torch.Size([2, 4, 3, 4, 8, 8])
    """
    frames = video.shape[2]
    if frames % instances:
        divisors = ", ".join(str(n) for n in range(1, frames + 1) if frames % n == 0)
        raise InputError(f"{instances} instances do not divide {frames} frames. Allowed here: {divisors}.")
    return video.unflatten(2, (instances, -1)).transpose(1, 2)


class InstanceEncoder(nn.Module):
    """Extract one feature vector an instance with R3D-18: ``(B, 3, T, H, W)`` -> ``(B, N, 8 * width)``.

    With single-frame instances the encoder is the 2-D ResNet-18, as in the paper's bag size 16 (M3DFEL, Table 3).

    Args:
        instances: N, the bag size.
        frames: T, the number of frames of a clip.
        width: channels of the stem; 64 is the published network.
        pretrained: True for torchvision's weights, a path for a local file, False for random weights.

    Raises:
        InputError: `instances` does not divide `frames`.
    """

    def __init__(
        self, instances: int = 4, frames: int = 16, width: int = FULL_WIDTH, pretrained: bool | str = False
    ) -> None:
        super().__init__()
        if instances < 1 or frames % instances:
            raise InputError(f"A bag of {instances} instances cannot hold {frames} frames: N must divide T.")
        self.instances = instances
        single_frames = instances == frames
        self.backbone = R2D(width, pretrained) if single_frames else R3D("r3d_18", width, pretrained)
        self.out_features = self.backbone.out_features
        self.mean, self.std = self.backbone.mean, self.backbone.std

    def forward(self, video: Tensor) -> Tensor:
        """Return the instance features ``(B, N, D)``."""
        bag = split_into_instances(video, self.instances)
        instances = bag.flatten(0, 1)
        if isinstance(self.backbone, R2D):
            instances = instances.squeeze(2)
        return self.backbone(instances).unflatten(0, bag.shape[:2])


class SelfAttention(nn.Module):
    """Multi-head self-attention over the instances of a bag: ``(B, N, D)`` -> ``(B, N, D)``.

    As in the public code of M3DFEL: one bias-free projection to queries, keys and values, scale ``(D / heads)^-0.5``,
    no output projection, no residual.

    Args:
        features: D, divisible by `heads`.
        heads: number of heads.
    """

    def __init__(self, features: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(features, 3 * features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the instances."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class InstanceAggregation(nn.Module):
    """Fuse the instances of a bag: ``(B, N, D)`` -> ``(B, D)`` (M3DFEL, Eq. 5).

    A Conv1d with the N instances as input channels slides a kernel of 3 over the feature axis.

    Args:
        instances: N, the bag size.
    """

    def __init__(self, instances: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(instances, 1, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the bag feature."""
        return self.conv(x).squeeze(1)

    def contributions(self, x: Tensor) -> Tensor:
        """Return each instance's share of the bag feature ``(B, N, D)``, scaled so that their mean is the bag feature.

        The aggregation is linear in the instances, so this decomposition is exact.
        """
        instances = x.shape[1]
        return instances * F.conv1d(x, self.conv.weight.transpose(0, 1), padding=1, groups=instances) + self.conv.bias
