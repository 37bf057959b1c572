"""Nets prepared for predictions alone."""

import copy

import pytest
import torch
from torch import nn

from dfer_zoo import nets
from dfer_zoo.nets.inference import for_inference

NETS = {
    **{name: lambda name=name: nets.BaselineNet(name, width=8, frames=8) for name in ("r3d_18", "r2plus1d_18")},
    "resnet18_lstm": lambda: nets.BaselineNet("resnet18_lstm", width=8, frames=8),
    "x3d_s": lambda: nets.BaselineNet("x3d_s", width=16),
    "m3dfel": lambda: nets.M3DFELNet(width=8, frames=8),
    "micacl": lambda: nets.MICACLNet(width=8, frames=8),
    "hdf": lambda: nets.HDFNet(frames=8, size=32, width_factor=0.5, depth_factor=0.5),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    """A small net with the statistics and weights of a trained one, so that a norm left out would show."""
    torch.manual_seed(0)
    net = NETS[request.param]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net


def test_it_is_the_same_function(net: nn.Module) -> None:
    net.double()
    before = copy.deepcopy(net.state_dict())
    video = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
    fast = for_inference(net, video[:1], torch.float64)
    with torch.no_grad():
        for found, expected in zip(fast(video), net.eval()(video), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_no_batch_norm_remains(net: nn.Module) -> None:
    fast = for_inference(net, torch.randn(1, 3, 8, 32, 32))
    assert not fast.training
    assert not [key for key, module in fast.named_modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]


def test_bf16_logits_are_near(net: nn.Module) -> None:
    video = torch.randn(4, 3, 8, 32, 32)
    fast = for_inference(net, video[:1], torch.bfloat16)
    with torch.no_grad():
        expected, found = net.eval()(video).logits, fast(video.bfloat16()).logits.float()
    assert found.isfinite().all()
    assert (found - expected).abs().max() < 0.1 * max(expected.std().item(), 0.1)
