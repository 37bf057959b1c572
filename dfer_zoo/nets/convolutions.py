"""Convolutions over time as `torch.nn.Conv3d` computes them, by the kernels that are right and fast.

Three of torch's CPU kernels are not: the weight gradient in bf16 of clips shorter than the kernel is wrong (torch 2.14:
from two frames on not finite, or of another direction), both gradients of depthwise convolutions take up to twenty
times the forward pass, and clips of a single frame are convolved with the padding around them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_MAP = 512
"""Positions of a clip's map up to which the time of a call is more than that of what it computes."""


class ClipConv3d(nn.Conv3d):
    """A convolution over time, without dilation, whose gradients are right and fast for any clip.

    Its parameter is `torch.nn.Conv3d`'s, so checkpoints of one are checkpoints of the other, and longer clips use all
    of it. Where clips are of a single frame, the outer taps stay without gradient and yet cost their share of the
    optimizer's state: in M3DFEL on instances of four frames 20 M of 47 M weights, 160 MB of AdamW's moments.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C, T, H, W)``."""
        if x.shape[2] == 1 and 2 * self.padding[0] + 1 == self.kernel_size[0]:
            # The other taps see nothing but padding. Cut out as it lies in memory, the gradient's zeros lie so, too.
            middle = self.weight.permute(0, 2, 3, 4, 1)[:, self.padding[0]].permute(0, 3, 1, 2)
            y = F.conv2d(x.squeeze(2), middle, self.bias, self.stride[1:], self.padding[1:], groups=self.groups)
            return y.unsqueeze(2)
        depthwise = self.groups == self.in_channels == self.out_channels
        short = self.groups == 1 and x.shape[2] < self.kernel_size[0]
        if x.device.type != "cpu" or not torch.is_grad_enabled() or not (depthwise or short):
            return super().forward(x)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):  # does not reach into autograd functions
            x, weight = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (x, weight))
        convolution = DepthwiseConvolution if depthwise else ShortClipConvolution
        y = convolution.apply(x, weight, self.stride, self.padding)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1, 1)


def use_clip_convolutions(net: nn.Module) -> None:
    """Make every convolution over time in `net` a `ClipConv3d`; parameters and their names stay.

    The libraries that build the networks have no argument for the class of their convolutions.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
            module.__class__ = ClipConv3d


class ShortClipConvolution(torch.autograd.Function):
    """Convolution of clips shorter than the kernel: for its weight gradient, time is padded beforehand.

    This is the same function and takes another kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv3d(x, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        time, *space = ctx.padding
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = _native_backward(gradient, x, weight, ctx.stride, ctx.padding, (True, False))[0]
        if ctx.needs_input_grad[1]:
            # F.pad is seven times slower
            padded = x.new_zeros(len(x), x.shape[2] + 2 * time, *x.shape[3:], x.shape[1]).permute(0, 4, 1, 2, 3)
            padded[:, :, time : time + x.shape[2]] = x
            for_weight = _native_backward(gradient, padded, weight, ctx.stride, (0, *space), (False, True))[1]
        return for_x, for_weight, None, None


class DepthwiseConvolution(torch.autograd.Function):
    """Depthwise convolution whose gradients are depthwise convolutions too, as CPUs compute these fast.

    With g the gradient of the output, with zeros between its values where the convolution has a stride: the gradient of
    the input is g convolved with the flipped kernel, that of the kernel is the clip convolved with g as the kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv3d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        channels, kernel = len(weight), weight.shape[2:]
        strided = max(ctx.stride) > 1
        g = gradient
        if strided:
            size = [n + 2 * p - k + 1 for n, p, k in zip(x.shape[2:], ctx.padding, kernel, strict=True)]
            g = gradient.new_zeros(len(x), *size, channels).permute(0, 4, 1, 2, 3)
            g[:, :, :: ctx.stride[0], :: ctx.stride[1], :: ctx.stride[2]] = gradient
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            padding = [k - 1 - p for k, p in zip(kernel, ctx.padding, strict=True)]
            for_x = F.conv3d(g, weight.flip(2, 3, 4), padding=padding, groups=channels)
        if ctx.needs_input_grad[1]:
            if strided and weight.dtype != torch.bfloat16:  # there torch's own is faster
                for_weight = _native_backward(gradient, x, weight, ctx.stride, ctx.padding, (False, True))[1]
            else:
                for_weight = _depthwise_weight_gradient(g, x, ctx.padding)
        return for_x, for_weight, None, None


def _depthwise_weight_gradient(gradient: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
    """Return the gradient ``(C, 1, *kernel)`` of a depthwise kernel without stride."""
    batch, channels = x.shape[:2]
    if x[0, 0].numel() > SMALL_MAP:  # a clip and its gradient are map and kernel as they lie in memory
        clips = zip(x.split(1), gradient[:, :, None], strict=True)
        each = [F.conv3d(clip, of_clip, padding=padding, groups=channels) for clip, of_clip in clips]
        return torch.cat(each).sum(0)[:, None]
    maps = x.permute(2, 3, 4, 0, 1).flatten(3).permute(3, 0, 1, 2)  # one call for all: clips as channels, channels last
    kernels = gradient.permute(2, 3, 4, 0, 1).flatten(3).permute(3, 0, 1, 2)
    each = F.conv3d(maps[None], kernels[:, None], padding=padding, groups=batch * channels)
    return each.unflatten(1, (batch, channels))[0].sum(0)[:, None]


def _native_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return torch's own gradients of the input and of the weight, of which only those wanted are computed."""
    groups = x.shape[1] // weight.shape[1]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1, 1), False, (0, 0, 0), groups, (*wanted, False)
    )
