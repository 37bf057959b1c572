"""HDF: the heterogeneity-aware distributional framework.

Reference:
    Cui et al., "Learning from Heterogeneity: Generalizing Dynamic Facial Expression Recognition via Distributionally
    Robust Optimization", ACM MM 2025. Section, equation and table numbers below are that paper's. Feature maps have the
    layout of convolutions here, ``(B, C, T, H, W)``; the paper writes ``(B, T, C, H, W)``.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dfer_zoo.errors import InputError
from dfer_zoo.nets.bag import NetOutput, SelfAttention
from dfer_zoo.nets.x3d import FULL_DEPTH_FACTOR, FULL_WIDTH_FACTOR, X3D

WINDOW = 7
"""Side of the DCT filters, in positions of the feature map; there are WINDOW^2 of them. The paper prints none."""

STAGES = (1, 2, 3, 4)
"""The residual stages of X3D."""


def dct_filters(size: int = WINDOW) -> Tensor:
    """Return the orthonormal two-dimensional DCT-II basis (Eq. 2-3) as filters ``(size^2, size, size)``, float32.

    Filter ``u * size + v`` has vertical frequency u and horizontal frequency v.
    """
    basis = [
        [math.sqrt((1 if u == 0 else 2) / size) * math.cos(math.pi * (2 * i + 1) * u / (2 * size)) for i in range(size)]
        for u in range(size)
    ]
    rows = torch.tensor(basis, dtype=torch.float64)
    return torch.einsum("ui,vj->uvij", rows, rows).reshape(size * size, size, size).float()


class MeanOverDevices(torch.autograd.Function):
    """The mean of the tensors that the devices bring; the gradient is the mean of theirs, too."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return MeanOverDevices.forward(ctx, gradient)


class AdversarialPerturbation(nn.Module):
    """Distribution-aware perturbation of the frequency maps (Eq. 6): ``(B, F, H, W)`` -> ``(B, F, H, W)``.

    ``f + a eps sign(f) + b sign(f) ||f - E[f]||_2``, the norm per clip over all its maps. E[f] is the mean over the
    batch, that of all devices together, and the positions in training and its running mean at evaluation, as in
    BatchNorm: a clip's logits must not depend on the other clips of a batch.

    Args:
        filters: F; a (initially 1) and b (initially 0) are learned for each.
        eps: the paper calls it fixed and prints none.
        momentum: weight of a new batch in the running mean.
    """

    def __init__(self, filters: int, eps: float = 0.1, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.sign_weight = nn.Parameter(torch.ones(filters, 1, 1))
        self.shift_weight = nn.Parameter(torch.zeros(filters, 1, 1))
        self.register_buffer("running_mean", torch.zeros(filters, 1, 1))

    def forward(self, f: Tensor) -> Tensor:
        """Perturb the maps."""
        if self.training:
            center = f.mean((0, 2, 3)).view_as(self.running_mean)
            if dist.is_available() and dist.is_initialized():  # each device brings equally many clips
                center = MeanOverDevices.apply(center)
            with torch.no_grad():
                self.running_mean.lerp_(center.to(self.running_mean.dtype), self.momentum)
        else:
            center = self.running_mean
        # The constant keeps the gradient of the root finite where every map equals the centre.
        deviation = ((f - center).square().sum((1, 2, 3), keepdim=True) + 1e-12).sqrt()
        return f + f.sign() * (self.sign_weight * self.eps + self.shift_weight * deviation)


class DynamicFitting(nn.Module):
    """Dynamic activation of the frequency maps (Eq. 7): ``(B, F, H, W)`` -> ``(B, F, H, W)``.

    ``tanh(alpha f / sqrt(Var + eps)) gamma + beta``, the biased variance per clip over all its maps.

    Args:
        filters: F; gamma (initially 1) and beta (initially 0) are learned for each, alpha (initially 1) for all.
        eps: added to the variance; the paper prints none.
    """

    def __init__(self, filters: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(()))
        self.weight = nn.Parameter(torch.ones(filters, 1, 1))
        self.bias = nn.Parameter(torch.zeros(filters, 1, 1))

    def forward(self, f: Tensor) -> Tensor:
        """Fit the activations."""
        variance = f.var((1, 2, 3), correction=0, keepdim=True)
        return torch.tanh(self.scale * torch.rsqrt(variance + self.eps) * f) * self.weight + self.bias


class FrequencyBranch(nn.Module):
    """Frequency attention of DAM (Eq. 6-8): mean frame of a map ``(B, C, H, W)`` -> spatial gate ``(B, 1, H, W)``.

    The DCT filters slide over the mean, summed over channels (which equals one filter repeated for every channel);
    perturbation, fitting, one-head self-attention with residual over the positions, and a linear layer
    to one map follow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", dct_filters(), persistent=False)
        self.perturbation = AdversarialPerturbation(WINDOW**2)
        self.fitting = DynamicFitting(WINDOW**2)
        self.attention = SelfAttention(WINDOW**2, heads=1)
        self.to_map = nn.Linear(WINDOW**2, 1)

    def forward(self, mean: Tensor) -> Tensor:
        """Return ``sigmoid(f_att)`` of Eq. 8."""
        height, width = mean.shape[2:]
        frequencies = F.conv2d(mean.sum(1, keepdim=True), self.filters[:, None], padding=WINDOW // 2)
        with torch.autocast(mean.device.type, enabled=False):  # sums of squares over thousands of values need float32
            wide = frequencies.to(torch.promote_types(frequencies.dtype, torch.float32))
            fitted = self.fitting(self.perturbation(wide)).to(frequencies.dtype)
        positions = fitted.flatten(2).transpose(1, 2)
        attention_map = self.to_map(positions + self.attention(positions))
        return attention_map.view(-1, 1, height, width).sigmoid()


class TemporalBranch(nn.Module):
    """Temporal attention of DAM (Eq. 9-10): mean and maximum of each frame, ``(B, C, T)`` -> its gate ``(B, 1, T)``.

    The descriptors of a frame are its averages and maxima over space and over G groups of channels. W is the distance
    of a frame's averages from their mean over time and D from those of the frame before (0 for the first), and
    ``TA = sigmoid(gamma (alpha A_avg + beta A_max) + delta W - D)``. One-head self-attention over the frames and the
    mean over groups give one number a frame.

    Args:
        groups: G. The recipe's number of frames makes TA square, as its indices in Eq. 9 say; clips may have any.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.average_weight = nn.Parameter(torch.tensor(0.5))  # alpha
        self.maximum_weight = nn.Parameter(torch.tensor(0.5))  # beta
        self.descriptor_weight = nn.Parameter(torch.tensor(1.0))  # gamma
        # delta. The printed signs lift drifting frames unless it turns negative, so it starts at zero.
        self.drift_weight = nn.Parameter(torch.tensor(0.0))
        self.groups = groups
        self.attention = SelfAttention(groups, heads=1)

    def temporal_attention(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """Return TA of Eq. 9, ``(B, T, G)``."""
        average = F.adaptive_avg_pool1d(mean.transpose(1, 2), self.groups)
        maximum = F.adaptive_max_pool1d(maximum.transpose(1, 2), self.groups)
        drift = torch.linalg.vector_norm(average - average.mean(1, keepdim=True), dim=2, keepdim=True)
        change = torch.linalg.vector_norm(average.diff(dim=1, prepend=average[:, :1]), dim=2, keepdim=True)
        descriptor = self.average_weight * average + self.maximum_weight * maximum
        return (self.descriptor_weight * descriptor + self.drift_weight * drift - change).sigmoid()

    def forward(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """Return ``sigmoid(TA)`` of Eq. 10."""
        return self.attention(self.temporal_attention(mean, maximum)).mean(2)[:, None].sigmoid()


class DAM(nn.Module):
    """Time-frequency distributional attention module (Eq. 6-12): ``(B, C, T, H, W)`` -> ``(B, C, T, H, W)``.

    Each branch scales the map by one plus its gate (Eq. 8, 10). The fusion weights are the softmax of one linear score
    for each branch, so they sum to 1 as Eq. 11 demands.

    Args:
        channels: C.
        groups: of channels in the temporal branch.
        frequency: False leaves the frequency branch out (Table 4).
        temporal: False leaves the temporal branch out (Table 4). With one branch left there is no fusion.

    Raises:
        InputError: both branches left out; at a call, a map smaller than the DCT window.
    """

    def __init__(self, channels: int, groups: int, frequency: bool = True, temporal: bool = True) -> None:
        super().__init__()
        if not (frequency or temporal):
            raise InputError("DAM needs its frequency branch, its temporal branch or both. Set dam: false for neither.")
        self.frequency = FrequencyBranch() if frequency else None
        self.temporal = TemporalBranch(groups) if temporal else None
        if frequency and temporal:
            self.frequency_score = nn.Linear(channels, 1)
            self.temporal_score = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to positions and frames."""
        if self.frequency is not None and min(x.shape[3:]) < WINDOW:
            raise InputError(
                f"DAM's {WINDOW}x{WINDOW} DCT window does not fit a map of {x.shape[3]}x{x.shape[4]} positions. Place "
                "DAM after an earlier stage (dam_stage) or use larger frames."
            )
        by_frequency = by_time = None
        if self.frequency is not None:
            mean_frame = x.mean(2)
            by_frequency = 1 + self.frequency(mean_frame)  # Eq. 8, of which x is the factor left out
        if self.temporal is not None:
            frame_means = x.mean((3, 4))
            by_time = 1 + self.temporal(frame_means, x.amax((3, 4)))  # Eq. 10, likewise
        if by_time is None:
            return x * by_frequency[:, :, None]
        if by_frequency is None:
            return x * by_time[..., None, None]
        # Each branch's gate is constant along the axes over which its mean is taken first, so that the mean of its
        # output over all positions needs no map of full size; neither does the sum of Eq. 12, whose factor is x.
        scores = [
            self.frequency_score((mean_frame * by_frequency).mean((2, 3))),
            self.temporal_score((frame_means * by_time).mean(2)),
        ]
        weights = torch.cat(scores, dim=1).softmax(1)[:, :, None, None, None, None]
        return x * (weights[:, 0] * by_frequency[:, :, None] + weights[:, 1] * by_time[..., None, None])


def place_of_dam(size: int) -> int:
    """Return the last stage of X3D whose map holds the DCT window, 1 to 4.

    Args:
        size: side of the frames, in pixels. Stem and stages halve it, rounding up.

    Raises:
        InputError: no stage's map does.

    >>> [place_of_dam(size) for size in (160, 112, 64, 48)]
    [3, 3, 2, 1]
    """
    fitting = [stage for stage in STAGES if math.ceil(size / 2 ** (stage + 1)) >= WINDOW]
    if not fitting:
        raise InputError(
            f"Frames of {size} px are too small for DAM's {WINDOW}x{WINDOW} window after any stage of X3D. Use frames "
            f"of at least {4 * WINDOW - 3} px, or dam: false."
        )
    return fitting[-1]


class HDFNet(nn.Module):
    """HDF's network: X3D-S with DAM after one of its stages, global mean, linear classifier.

    Clips ``(B, 3, T, H, W)``, float, normalised by `mean` and `std`, of any length and size -> logits ``(B, K)`` and
    feature ``(B, D)``.

    Args:
        num_classes: K.
        frames: T, which also is the number of channel groups of the temporal branch.
        size: side of the frames, in pixels; only the default place of DAM depends on it.
        dam: False leaves DAM out (Table 3).
        frequency: False leaves its frequency branch out (Table 4).
        temporal: False leaves its temporal branch out (Table 4).
        dam_stage: stage of X3D, 1 to 4, that DAM follows; the paper prints none. None is the last one whose map holds
            the DCT window: at 160 px the maps have a side of 40, 20, 10 and 5 positions, so it is stage 3.
        dropout: probability of dropping a value of the feature before the classifier; X3D's 0.5.
        width_factor: of X3D; 2 is the published one.
        depth_factor: of X3D; 2.2 is the published one.
        pretrained: True for pytorchvideo's Kinetics-400 weights, a path for a local file, False for random weights.

    Raises:
        InputError: a stage that does not exist, or frames too small for DAM after any.
    """

    mean, std = X3D.mean, X3D.std

    def __init__(
        self,
        num_classes: int = 7,
        frames: int = 16,
        size: int = 160,
        dam: bool = True,
        frequency: bool = True,
        temporal: bool = True,
        dam_stage: int | None = None,
        dropout: float = 0.5,
        width_factor: float = FULL_WIDTH_FACTOR,
        depth_factor: float = FULL_DEPTH_FACTOR,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        self.backbone = X3D(pretrained, width_factor, depth_factor)
        self.dam = None
        if dam:
            self.dam_stage = place_of_dam(size) if dam_stage is None else dam_stage
            if self.dam_stage not in STAGES:
                raise InputError(f"dam_stage is {dam_stage}; X3D has stages 1, 2, 3 and 4.")
            self.dam = DAM(self.backbone.channels[self.dam_stage], frames, frequency, temporal)
        self.out_features = self.backbone.out_features
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.out_features, num_classes)

    def forward(self, video: Tensor) -> NetOutput:
        """Classify clips. The feature returned is the one before dropout."""
        x = video
        for stage, block in enumerate(self.backbone.blocks):
            x = block(x)
            if self.dam is not None and stage == self.dam_stage:
                x = self.dam(x)
        features = x.mean((2, 3, 4))
        return NetOutput(self.fc(self.dropout(features)), features)
