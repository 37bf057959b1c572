"""The residual backbones: torchvision's functions, right gradients in bf16, and weights files."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.nets.r3d import R2D, R3D, load_torchvision_weights

VIDEO_NETS = ("r3d_18", "mc3_18", "r2plus1d_18")


def without_classifier(net: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value for key, value in net.state_dict().items() if not key.startswith("fc.")}


def randomise_statistics(net: nn.Module) -> None:
    """Give BatchNorm statistics of trained networks, so that a norm left out would show."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize("architecture", VIDEO_NETS)
def test_full_width_is_torchvisions_video_net(architecture: str) -> None:
    theirs = getattr(torchvision.models.video, architecture)(weights=None).eval()
    randomise_statistics(theirs)
    ours = R3D(architecture).eval()
    ours.load_state_dict(without_classifier(theirs))
    theirs.fc = nn.Identity()
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(video), theirs(video), rtol=1e-4, atol=1e-5)


def test_full_width_is_torchvisions_image_net() -> None:
    theirs = torchvision.models.resnet18(weights=None).eval()
    randomise_statistics(theirs)
    ours = R2D().eval()
    ours.load_state_dict(without_classifier(theirs))
    theirs.fc = nn.Identity()
    image = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", VIDEO_NETS)
@pytest.mark.parametrize("width", [4, 24])
def test_width_scales_the_features(architecture: str, width: int) -> None:
    net = R3D(architecture, width).eval()
    assert net(torch.randn(1, 3, 2, 16, 16)).shape == (1, 8 * width) == (1, net.out_features)


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="r3d_18, mc3_18, r2plus1d_18"):
        R3D("r3d_50")


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("architecture", VIDEO_NETS)
def test_bf16_gradients_are_those_of_float32(architecture: str, frames: int) -> None:
    """Of each convolution by itself: through all layers, bf16's rounding alone would turn the first ones."""
    net = R3D(architecture, width=8)
    seen: list[tuple[nn.Conv3d, torch.Tensor]] = []
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv3d)]
    hooks = [
        module.register_forward_hook(lambda module, inputs, _: seen.append((module, inputs[0].detach())))
        for module in convolutions
    ]
    net(torch.randn(2, 3, frames, 32, 32).to(memory_format=torch.channels_last_3d))
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(convolutions)
    for module, x in seen:
        x = x.to(memory_format=torch.channels_last_3d)
        gradients = []
        for dtype in (torch.float32, torch.bfloat16):
            module.to(dtype, memory_format=torch.channels_last_3d).zero_grad()
            y = module(x.to(dtype))
            y.backward(torch.linspace(-9, 9, y.numel()).cos().view_as(y).to(dtype))
            gradients.append(module.weight.grad.float().flatten())
        cosine = nn.functional.cosine_similarity(*gradients, dim=0).item()
        assert cosine > 0.999, (module, tuple(x.shape), cosine)


@pytest.mark.parametrize("net", [lambda **kwargs: R3D("r3d_18", **kwargs), R2D], ids=["R3D", "R2D"])
def test_pretrained_weights_for_another_width_are_refused(net: type) -> None:
    for pretrained in (True, "anything.pth"):
        with pytest.raises(InputError, match=r"width 64, not 16.*pretrained: false"):
            net(width=16, pretrained=pretrained)


@pytest.mark.parametrize("architecture", [*VIDEO_NETS, "resnet18"])
def test_offline_says_what_to_do(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, *_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match=r"no route to host.*https://.*pretrained: false"):
        load_torchvision_weights(nn.Module(), architecture, 64, True)


def test_local_file_is_loaded_without_its_classifier(tmp_path: Path) -> None:
    trained = torchvision.models.video.r3d_18(weights=None, num_classes=400)
    torch.save(trained.state_dict(), tmp_path / "r3d_18.pth")
    loaded = R3D("r3d_18", pretrained=str(tmp_path / "r3d_18.pth"))
    assert loaded.state_dict().keys() == without_classifier(trained).keys()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key]), key


def test_file_of_another_net_is_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match=r"do not fit r3d_18.*stem"):
        R3D("r3d_18", pretrained=str(tmp_path / "resnet18.pth"))
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth holds a list"):
        R3D("r3d_18", pretrained=str(tmp_path / "list.pth"))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut off"])
def test_file_that_holds_no_weights_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pth is not a file of PyTorch weights"):
        R3D("r3d_18", pretrained=str(path))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(CheckpointError, match="There is no weights file"):
            R3D("r3d_18", pretrained=str(path))


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_file_that_would_run_code_is_refused(save, tmp_path: Path) -> None:
    created = tmp_path / "created"
    save({"stem.0.weight": Malicious(created)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="not a file of PyTorch weights"):
        R3D("r3d_18", pretrained=str(tmp_path / "weights.pth"))
    assert not created.exists()
