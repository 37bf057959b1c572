"""The 18-layer residual networks of torchvision as feature extractors, at any width.

References:
    Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018 (R3D, MC3, R(2+1)D).
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (ResNet-18).
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock as BasicBlock2d
from torchvision.models.resnet import ResNet
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, Conv3DNoTemporal, Conv3DSimple, VideoResNet

from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.nets.convolutions import use_clip_convolutions

FULL_WIDTH = 64
"""Channels of the stem in the published networks; the last stage has eight times as many."""


CONVOLUTIONS = {
    "r3d_18": (Conv3DSimple, Conv3DSimple, Conv3DSimple, Conv3DSimple),
    "mc3_18": (Conv3DSimple, Conv3DNoTemporal, Conv3DNoTemporal, Conv3DNoTemporal),
    "r2plus1d_18": (Conv2Plus1D, Conv2Plus1D, Conv2Plus1D, Conv2Plus1D),
}


class R3D(VideoResNet):
    """A torchvision video ResNet up to its global pooling: ``(B, 3, T, H, W)`` -> ``(B, 8 * width)``.

    Parameter names are torchvision's, without ``fc``.

    Args:
        architecture: ``r3d_18``, ``mc3_18`` or ``r2plus1d_18``.
        width: channels of the stem and the first stage; 64 is the published network, less is for small machines.
        pretrained: True loads torchvision's Kinetics-400 weights, a path loads a local file, False starts from scratch.

    Raises:
        InputError: pretrained weights for a narrowed network.
        CheckpointError: weights that cannot be downloaded or do not fit.
    """

    mean = (0.43216, 0.394666, 0.37645)
    std = (0.22803, 0.22145, 0.216989)

    def __init__(self, architecture: str = "r3d_18", width: int = FULL_WIDTH, pretrained: bool | str = False):
        nn.Module.__init__(self)
        if architecture not in CONVOLUTIONS:
            raise InputError(f"Unknown video ResNet {architecture!r}. Choose one of: {', '.join(CONVOLUTIONS)}.")
        self.stem = _factorised_stem(width) if architecture == "r2plus1d_18" else _stem(width)
        self.inplanes = width
        for stage, convolution in enumerate(CONVOLUTIONS[architecture]):
            layer = self._make_layer(BasicBlock, convolution, width * 2**stage, 2, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.out_features = 8 * width
        use_clip_convolutions(self)
        _initialise(self)
        load_torchvision_weights(self, architecture, width, pretrained)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The residual stages."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, video: Tensor) -> Tensor:
        """Return the globally pooled features ``(B, 8 * width)``."""
        x = self.stem(video)
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3, 4))


class R2D(ResNet):
    """torchvision's image ResNet-18 up to its global pooling: ``(B, 3, H, W)`` -> ``(B, 8 * width)``.

    Args:
        width: channels of the stem and the first stage; 64 is the published network.
        pretrained: True loads torchvision's ImageNet weights, a path loads a local file, False starts from scratch.

    Raises:
        InputError: pretrained weights for a narrowed network.
        CheckpointError: weights that cannot be downloaded or do not fit.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, width: int = FULL_WIDTH, pretrained: bool | str = False):
        nn.Module.__init__(self)
        self._norm_layer, self.groups, self.base_width, self.dilation = nn.BatchNorm2d, 1, 64, 1
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for stage in range(4):
            layer = self._make_layer(BasicBlock2d, width * 2**stage, 2, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.out_features = 8 * width
        _initialise(self)
        load_torchvision_weights(self, "resnet18", width, pretrained)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The residual stages."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward(self, image: Tensor) -> Tensor:
        """Return the globally pooled features ``(B, 8 * width)``."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))


def _stem(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def _factorised_stem(width: int) -> nn.Sequential:
    middle = 45 * width // FULL_WIDTH
    return nn.Sequential(
        nn.Conv3d(3, middle, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def _initialise(net: nn.Module) -> None:
    """Draw convolutions as torchvision does: normal, scaled by the fan-out (He et al., 2015)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def load_torchvision_weights(net: nn.Module, architecture: str, width: int, pretrained: bool | str) -> None:
    """Load torchvision's weights for `architecture`, or a local file with the same keys, into `net`; drop ``fc``.

    Raises:
        InputError: `width` is not the published one.
        CheckpointError: the download failed, or the file does not fit.
    """
    if pretrained is False:
        return
    if width != FULL_WIDTH:
        raise InputError(
            f"Pretrained weights exist for width {FULL_WIDTH}, not {width}. "
            f"Set width: {FULL_WIDTH} or pretrained: false."
        )
    state = _download(architecture) if pretrained is True else read_weights(pretrained)
    load_matching(net, {key: value for key, value in state.items() if not key.startswith("fc.")}, architecture)


def _download(architecture: str) -> Mapping[str, Tensor]:
    weights = get_model_weights(architecture).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"The pretrained weights of {architecture} could not be downloaded ({error}). "
            f"Download {weights.url} on a machine with internet and pass its path (pretrained: path/to/file.pth), "
            "or train from scratch (pretrained: false)."
        ) from error


def read_weights(path: str | Path) -> Mapping[str, Tensor]:
    """Read a state dict from a local file without running any code in it.

    Raises:
        CheckpointError: no such file, or not a file of named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no weights file {path}. Pass an existing file, or pretrained: false.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen unrelated classes for a damaged or foreign file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} is not a file of PyTorch weights ({reason}). Copy or download it again."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not named weights. Pass a state dict's file.")
    return content


def load_matching(net: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `net`, strictly.

    Raises:
        CheckpointError: keys or shapes differ; the message names the first few.
    """
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(f"The weights do not fit {what}: {lines[:300]}") from error
