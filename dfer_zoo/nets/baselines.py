"""The networks that the papers compare themselves with: a backbone and a linear classifier."""

from typing import Literal, get_args

from torch import Tensor, nn

from dfer_zoo.errors import InputError
from dfer_zoo.nets.bag import InstanceEncoder, NetOutput
from dfer_zoo.nets.r3d import FULL_WIDTH, R3D
from dfer_zoo.nets.x3d import X3D

Backbone = Literal["r3d_18", "mc3_18", "r2plus1d_18", "x3d_s", "resnet18_lstm"]


class FrameLSTM(nn.Module):
    """ResNet-18 on every frame, an LSTM over the frames: ``(B, 3, T, H, W)`` -> its last state ``(B, 8 * width)``.

    Args:
        frames: T.
        width: channels of the ResNet's stem.
        pretrained: True for torchvision's ImageNet weights, a path for a local file, False for random weights.
    """

    def __init__(self, frames: int = 16, width: int = FULL_WIDTH, pretrained: bool | str = False) -> None:
        super().__init__()
        self.encoder = InstanceEncoder(frames, frames, width, pretrained)
        self.mean, self.std = self.encoder.mean, self.encoder.std
        self.out_features = self.encoder.out_features
        self.lstm = nn.LSTM(self.out_features, self.out_features, batch_first=True)

    def forward(self, video: Tensor) -> Tensor:
        """Return the last state."""
        _, (state, _) = self.lstm(self.encoder(video))
        return state[-1]


class BaselineNet(nn.Module):
    """A backbone with a linear classifier: clips ``(B, 3, T, H, W)`` -> logits ``(B, K)``, features ``(B, D)``.

    Args:
        backbone: ``r3d_18``, ``mc3_18``, ``r2plus1d_18`` (torchvision), ``x3d_s`` (pytorchvideo) or ``resnet18_lstm``.
        num_classes: K.
        frames: T; only ``resnet18_lstm`` depends on it.
        width: channels of the stem of torchvision's networks; 64 is the published one. ``x3d_s`` is scaled by
            ``width / 64``.
        dropout: probability of dropping a feature before the classifier.
        pretrained: True for published weights, a path for a local file, False for random weights.

    Raises:
        InputError: an unknown backbone.
    """

    def __init__(
        self,
        backbone: Backbone = "r3d_18",
        num_classes: int = 7,
        frames: int = 16,
        width: int = FULL_WIDTH,
        dropout: float = 0.0,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        if backbone not in get_args(Backbone):
            raise InputError(f"Unknown backbone {backbone!r}. Choose one of: {', '.join(get_args(Backbone))}.")
        if backbone == "resnet18_lstm":
            self.backbone = FrameLSTM(frames, width, pretrained)
        elif backbone == "x3d_s":
            self.backbone = X3D(width_factor=2.0 * width / FULL_WIDTH, pretrained=pretrained)
        else:
            self.backbone = R3D(backbone, width, pretrained)
        self.mean, self.std = self.backbone.mean, self.backbone.std
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.backbone.out_features, num_classes)

    def forward(self, video: Tensor) -> NetOutput:
        """Classify clips."""
        features = self.backbone(video)
        return NetOutput(self.fc(self.dropout(features)), features)
