"""The baselines: each backbone's shape, its classifier, and the recurrent one's order of frames."""

from typing import get_args

import pytest
import torch

from dfer_zoo.errors import InputError
from dfer_zoo.nets.baselines import Backbone, BaselineNet

BACKBONES = get_args(Backbone)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("classes", [2, 7])
def test_logits_are_the_classifiers_of_the_features(backbone: Backbone, classes: int) -> None:
    net = BaselineNet(backbone, classes, frames=4, width=8).eval()
    with torch.no_grad():
        logits, features = net(torch.randn(3, 3, 4, 32, 32))
        torch.testing.assert_close(net.fc(features), logits)
    assert logits.shape == (3, classes)
    assert features.shape == (3, net.backbone.out_features)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_gets_a_gradient(backbone: Backbone) -> None:
    torch.manual_seed(0)
    net = BaselineNet(backbone, frames=16, width=8)
    for name, parameter in net.named_parameters():
        if name.endswith("branch2.norm_c.weight"):  # X3D's blocks start as the identity
            torch.nn.init.constant_(parameter, 0.5)
    net(torch.randn(2, 3, 16, 32, 32)).logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "resnet18_lstm"])
@pytest.mark.parametrize(("frames", "side"), [(1, 32), (3, 40), (9, 24)])
def test_convolutional_backbones_take_any_clip(backbone: Backbone, frames: int, side: int) -> None:
    net = BaselineNet(backbone, width=8).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, frames, side, side)).logits.isfinite().all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_time_matters(backbone: Backbone) -> None:
    """Playing a clip backwards changes the logits of every backbone."""
    torch.manual_seed(0)
    net = BaselineNet(backbone, frames=8, width=8).eval()
    video = torch.randn(1, 3, 8, 32, 32) * torch.linspace(0, 2, 8).view(8, 1, 1)
    with torch.no_grad():
        forwards, backwards = net(video).features, net(video.flip(2)).features
    assert (forwards - backwards).norm() > 1e-3 * forwards.norm()


def test_dropout_is_before_the_classifier_and_in_training_only() -> None:
    net = BaselineNet("r3d_18", width=8, dropout=0.9)
    for module in net.backbone.modules():
        module.eval()
    net.backbone.eval()
    video = torch.randn(1, 3, 2, 32, 32)
    net.dropout.train()
    first, second = net(video), net(video)
    torch.testing.assert_close(first.features, second.features)
    assert not torch.equal(first.logits, second.logits)
    net.eval()
    torch.testing.assert_close(net(video).logits, net(video).logits)


def test_unknown_backbone_is_refused() -> None:
    with pytest.raises(InputError, match="r3d_18, mc3_18, r2plus1d_18, x3d_s, resnet18_lstm"):
        BaselineNet("i3d")


def test_recurrent_baseline_is_resnet_then_lstm() -> None:
    net = BaselineNet("resnet18_lstm", frames=3, width=8).eval()
    video = torch.randn(2, 3, 3, 32, 32)
    with torch.no_grad():
        frames = torch.stack([net.backbone.encoder.backbone(video[:, :, t]) for t in range(3)], 1)
        states, _ = net.backbone.lstm(frames)
        torch.testing.assert_close(net(video).features, states[:, -1], rtol=1e-4, atol=1e-5)
