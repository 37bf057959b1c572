"""Cost of a model, against counts by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dfer_zoo.models import M3DFEL, Baseline
from dfer_zoo.profile import clips_per_second, count_macs, measure_cost


def macs_by_hooks(model: nn.Module, frames: int, size: int) -> int:
    """Count convolutions and linear layers from the shapes they see."""
    count = 0

    def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal count
        if isinstance(module, nn.Conv3d):
            count += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            count += output.numel() * module.in_features

    hooks = [module.register_forward_hook(hook) for module in model.modules()]
    model.eval()(torch.zeros(1, 3, frames, size, size, dtype=torch.uint8))
    for handle in hooks:
        handle.remove()
    return count


def test_macs_are_those_of_the_layers() -> None:
    model = Baseline("r3d_18", frames=4, width=8, pretrained=False)
    assert count_macs(model, 4, 32) == macs_by_hooks(model, 4, 32)


def test_padding_for_bf16_costs_nothing_in_the_count() -> None:
    model = Baseline("r3d_18", frames=2, width=8, pretrained=False)
    assert count_macs(model, 2, 32) == macs_by_hooks(model, 2, 32)


def test_the_lstm_is_counted() -> None:
    options = {"frames": 16, "width": 4, "pretrained": False}
    with_lstm, without = (count_macs(M3DFEL(lstm=lstm, mhsa=False, **options), 16, 32) for lstm in (True, False))
    hidden, instances = 32, 4
    layers = 4 * hidden * (hidden + hidden) + 4 * hidden * (2 * hidden + hidden)  # first and second, one direction
    twice_as_wide = instances * hidden * 3 + hidden * 7  # aggregation and classifier of both directions' states
    assert with_lstm - without == 2 * instances * layers + twice_as_wide


def test_published_gmacs_of_m3dfel() -> None:
    """R3D-18 on 16 frames of 112 pixels, in four instances; the design's 43 GMACs by another counter."""
    assert count_macs(M3DFEL(pretrained=False), 16, 112) / 1e9 == pytest.approx(43, rel=0.06)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(training: bool) -> None:
    model = Baseline("r3d_18", frames=4, width=8, pretrained=False).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, 4, 32)
    assert clips_per_second(model, 4, 32, batch=2, seconds=0.0) > 0
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_cost_names_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfer_zoo.profile.clips_per_second", lambda *_: 5.0)
    model = Baseline("r3d_18", frames=4, width=8, pretrained=False)
    cost = measure_cost(model, SimpleNamespace(frames=4, size=32))
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    assert cost["gmacs_per_clip"] == count_macs(model, 4, 32) / 1e9
    assert (cost["inference_clips_per_second"], cost["frames"], cost["size"], cost["device"]) == (5.0, 4, 32, "cpu")
