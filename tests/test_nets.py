"""What every network has in common. A network that is added to `dfer_zoo.nets` is tested here without being named."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from dfer_zoo import nets
from dfer_zoo.nets.convolutions import ClipConv3d
from dfer_zoo.nets.r3d import FULL_WIDTH

NETS = {name: getattr(nets, name) for name in nets.__all__ if issubclass(getattr(nets, name), nn.Module)}
SMALL = {"HDFNet": {"size": 32, "width_factor": 0.25, "depth_factor": 0.5}}
CLIP = (2, 3, 16, 32, 32)


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    """A small network without dropout."""
    torch.manual_seed(0)
    net = NETS[request.param](**SMALL.get(request.param, {"width": 8}))
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def gradients(net: nn.Module, video: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad()
    net(video).logits.square().sum().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def test_output_is_finite_and_has_the_documented_shape(net: nn.Module) -> None:
    for training in (True, False):
        logits, features = net.train(training)(torch.randn(CLIP))
        assert logits.shape == (2, 7)
        assert features.ndim == 2
        assert len(features) == 2
        assert logits.isfinite().all()
        assert features.isfinite().all()


def test_classes_by_option(net: nn.Module) -> None:
    name = type(net).__name__
    assert NETS[name](num_classes=3, **SMALL.get(name, {"width": 8}))(torch.randn(CLIP)).logits.shape == (2, 3)


def test_normalisation_is_declared(net: nn.Module) -> None:
    assert len(net.mean) == len(net.std) == 3
    assert all(0 < value < 1 for value in (*net.mean, *net.std))


def test_every_parameter_gets_a_gradient(net: nn.Module) -> None:
    for name, parameter in net.named_parameters():
        if name.endswith("branch2.norm_c.weight"):
            # X3D's blocks start as the identity: until these leave zero, nothing before them has a gradient
            assert not parameter.any()
            nn.init.constant_(parameter, 0.5)
    found = gradients(net, torch.randn(CLIP))
    assert [name for name, grad in found.items() if grad is None or not grad.isfinite().all()] == []
    assert [name for name, grad in found.items() if not grad.abs().sum() > 0] == []


def test_every_convolution_over_time_is_ours(net: nn.Module) -> None:
    over_time = [module for module in net.modules() if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1]
    assert over_time
    assert all(type(module) is ClipConv3d for module in over_time)


@pytest.mark.parametrize("name", ["M3DFELNet", "MICACLNet"])
def test_outer_temporal_taps_see_only_padding_in_short_instances(name: str) -> None:
    """In instances of 4 frames, the maps of layer3 and layer4 hold a single frame, so their outer taps never act.

    The first convolution of layer3 still sees two frames, and its last tap the second one.
    """
    torch.manual_seed(0)
    net = NETS[name](width=8)
    found = gradients(net, torch.randn(CLIP))
    silent = set()
    for parameter, grad in found.items():
        if grad.ndim == 5 and grad.shape[2] == 3:
            taps = grad.abs().sum((0, 1, 3, 4)) > 0
            assert taps[1], parameter
            if not taps.all():
                silent.add((parameter.removeprefix("encoder.backbone."), *taps.tolist()))
    single_frame = ["layer3.0.conv2.0", "layer3.1.conv1.0", "layer3.1.conv2.0"]
    single_frame += [f"layer4.{block}.conv{number}.0" for block in (0, 1) for number in (1, 2)]
    expected = {(f"{convolution}.weight", False, True, False) for convolution in single_frame}
    assert silent == expected | {("layer3.0.conv1.0.weight", False, True, True)}


def test_a_clip_does_not_depend_on_its_batch_at_evaluation(net: nn.Module) -> None:
    net(torch.randn(CLIP))  # running statistics that are not the initial ones
    net.eval()
    video = torch.randn(CLIP)
    with torch.no_grad():
        together, alone = net(video), net(video[1:])
    torch.testing.assert_close(together.logits[1:], alone.logits, rtol=1e-4, atol=1e-5)


def test_logits_are_the_classifiers_of_the_features(net: nn.Module) -> None:
    net.eval()
    with torch.no_grad():
        logits, features = net(torch.randn(CLIP))
        torch.testing.assert_close(net.fc(features), logits)


def test_state_dict_goes_round(net: nn.Module) -> None:
    name = type(net).__name__
    net(torch.randn(CLIP))
    torch.manual_seed(1)
    twin = NETS[name](**SMALL.get(name, {"width": 8}))
    twin.load_state_dict(net.state_dict())
    video = torch.randn(CLIP)
    with torch.no_grad():
        assert torch.equal(net.eval()(video).logits, twin.eval()(video).logits)


def test_channels_last_changes_nothing(net: nn.Module) -> None:
    """The loader's clips are channels last in memory."""
    net.eval()
    video = torch.randn(CLIP)
    with torch.no_grad():
        expected = net(video).logits
        given = net(video.to(memory_format=torch.channels_last_3d)).logits
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_published_width_is_the_default() -> None:
    assert nets.M3DFELNet().encoder.out_features == 8 * FULL_WIDTH
    assert nets.BaselineNet().fc.in_features == 8 * FULL_WIDTH


def test_nets_and_losses_never_import_lightning() -> None:
    program = (
        "import sys; import dfer_zoo.losses, dfer_zoo.nets, dfer_zoo.optim; dfer_zoo.nets.HDFNet(size=32);"
        "print([name for name in sys.modules if 'lightning' in name.lower()])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert output.stdout.strip() == "[]"
