"""Convolutions over time against torch.nn.Conv3d: outputs, gradients, memory, and what counts or compiles them."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dfer_zoo.nets.convolutions import (
    SMALL_MAP,
    ClipConv3d,
    DepthwiseConvolution,
    ShortClipConvolution,
    use_clip_convolutions,
)

DENSE, DEPTHWISE = {"in_channels": 3, "out_channels": 5}, {"in_channels": 4, "out_channels": 4, "groups": 4}


def pair(dtype: torch.dtype = torch.float64, **options: object) -> tuple[ClipConv3d, nn.Conv3d]:
    """Return a convolution of ours and torch's own with the same weights."""
    options = {"bias": False, "dtype": dtype, **options}
    theirs, ours = nn.Conv3d(**options), nn.Conv3d(**options)
    ours.load_state_dict(theirs.state_dict())
    use_clip_convolutions(ours)
    assert type(ours) is ClipConv3d
    return ours, theirs


def output_and_gradients(convolution: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    convolution.zero_grad()
    y = convolution(x)
    y.backward(torch.linspace(-9, 9, y.numel()).cos().view_as(y).to(y.dtype))
    return y, x.grad, *(parameter.grad.clone() for parameter in convolution.parameters())


@given(
    channels=st.sampled_from([DENSE, DEPTHWISE, {"in_channels": 4, "out_channels": 6, "groups": 2}]),
    kernel=st.sampled_from([((3, 3, 3), (1, 1, 1)), ((5, 1, 1), (2, 0, 0)), ((3, 2, 3), (0, 1, 0))]),
    stride=st.tuples(*[st.integers(1, 3)] * 3),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(3, 12), st.integers(3, 12)),
    channels_last=st.booleans(),
    bias=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_it_is_torchs_convolution_with_torchs_gradients(
    channels: dict[str, int],
    kernel: tuple[tuple[int, ...], tuple[int, ...]],
    stride: tuple[int, int, int],
    shape: tuple[int, int, int, int],
    channels_last: bool,
    bias: bool,
) -> None:
    size, padding = kernel
    batch, frames, height, width = shape
    frames = max(frames, size[0] - 2 * padding[0])
    ours, theirs = pair(kernel_size=size, stride=stride, padding=padding, bias=bias, **channels)
    x = torch.randn(batch, channels["in_channels"], frames, height, width, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last_3d)
    for mine, expected in zip(output_and_gradients(ours, x), output_and_gradients(theirs, x), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", [4, 16])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2)])
def test_depthwise_gradients_of_small_and_large_maps(side: int, stride: tuple[int, int, int]) -> None:
    """The two sides of `SMALL_MAP`."""
    assert (8 * side**2 > SMALL_MAP) == (side == 16)
    ours, theirs = pair(kernel_size=3, stride=stride, padding=1, **DEPTHWISE)
    x = torch.randn(3, 4, 8, side, side, dtype=torch.float64).to(memory_format=torch.channels_last_3d)
    for mine, expected in zip(output_and_gradients(ours, x), output_and_gradients(theirs, x), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("function", "groups"), [(DepthwiseConvolution, 2), (ShortClipConvolution, 1)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2)])
def test_gradients_are_those_of_finite_differences(function: type, groups: int, stride: tuple[int, int, int]) -> None:
    x = torch.randn(2, 2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2 // groups, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: function.apply(x, weight, stride, (1, 1, 1)), (x, weight))


BF16 = [
    *itertools.product([{"kernel_size": 3, "padding": 1}], [{"groups": 1}, {"groups": 16}]),
    *itertools.product([{"kernel_size": (3, 1, 1), "padding": (1, 0, 0)}], [{"groups": 1}]),
    *itertools.product([{"kernel_size": (5, 1, 1), "padding": (2, 0, 0)}], [{"groups": 16}]),
    *itertools.product([{"kernel_size": 3, "padding": 1, "stride": (1, 2, 2)}], [{"groups": 1}, {"groups": 16}]),
    *itertools.product([{"kernel_size": 3, "padding": 1, "stride": 2}], [{"groups": 1}]),
]


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("options", [{**size, **groups} for size, groups in BF16], ids=str)
def test_bf16_gradients_are_those_of_float32(options: dict[str, object], frames: int) -> None:
    """Torch's own weight gradients are wrong for some of these, most of all for two frames."""
    ours, _ = pair(torch.float32, in_channels=16, out_channels=16, **options)
    x = torch.randn(4, 16, frames, 16, 16).to(memory_format=torch.channels_last_3d)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        ours.to(dtype, memory_format=torch.channels_last_3d)
        found.append([tensor.float().flatten() for tensor in output_and_gradients(ours, x.to(dtype))])
    for single, half in zip(*found, strict=True):
        assert nn.functional.cosine_similarity(single, half, dim=0) > 0.999


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("channels", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])
def test_autocast_computes_in_bf16_and_keeps_float32_gradients(channels: dict[str, int], frames: int) -> None:
    ours, theirs = pair(torch.float32, kernel_size=3, padding=1, **channels)
    x = torch.randn(2, channels["in_channels"], frames, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert ours.weight.grad.dtype == torch.float32
    z = theirs(x)
    z.square().sum().backward()
    torch.testing.assert_close(y.float(), z, rtol=0.02, atol=0.02)
    assert nn.functional.cosine_similarity(ours.weight.grad.flatten(), theirs.weight.grad.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("channels", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])
def test_channels_last_comes_out_as_it_goes_in(channels: dict[str, int], frames: int) -> None:
    ours, _ = pair(torch.float32, kernel_size=3, padding=1, **channels)
    x = torch.randn(2, channels["in_channels"], frames, 6, 6).to(memory_format=torch.channels_last_3d)
    y, of_x, _ = output_and_gradients(ours.to(memory_format=torch.channels_last_3d), x)
    for tensor in (y, of_x):
        assert tensor.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("channels", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])
def test_operations_are_counted_as_torchs(channels: dict[str, int]) -> None:
    counts = []
    for convolution in pair(torch.float32, kernel_size=3, padding=1, **channels):
        with FlopCounterMode(display=False) as counter:
            convolution(torch.randn(2, channels["in_channels"], 4, 6, 6))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
