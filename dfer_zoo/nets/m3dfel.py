"""M3DFEL: multi-3D dynamic facial expression learning.

Reference:
    Wang et al., "Rethinking the Learning Paradigm for Dynamic Facial Expression Recognition", CVPR 2023.
    Section, equation and table numbers below are that paper's.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from dfer_zoo.errors import CheckpointError
from dfer_zoo.nets.bag import InstanceAggregation, InstanceEncoder, NetOutput, SelfAttention
from dfer_zoo.nets.r3d import FULL_WIDTH, load_matching


class DMIN(nn.Module):
    """Dynamic multi-instance normalization (Eq. 1-4): ``(B, N, D)`` -> ``(B, N, D)``.

    Mixes the statistics of each channel over the instances (``in``) with those of the whole bag (``bn``) by learned
    softmax weights. Statistics are those of the authors' code, which departs from the paper twice: the variance over
    the instances is the unbiased one (Eq. 3 prints ``1 / N``), and the bag's variance is the mean over channels of
    ``var_in + mean_in^2`` minus the squared mean (Eq. 2 with that same unbiased variance).

    Args:
        features: D.
        eps: added to the mixed variance (Eq. 1).
    """

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.mean_weight = nn.Parameter(torch.ones(2))
        self.var_weight = nn.Parameter(torch.ones(2))

    def forward(self, a: Tensor) -> Tensor:
        """Normalise the attention output ``A``, in float32."""
        with torch.autocast(a.device.type, enabled=False):
            a = a.to(torch.promote_types(a.dtype, torch.float32))
            var_in, mean_in = torch.var_mean(a, dim=1, keepdim=True)
            mean_bn = mean_in.mean(dim=2, keepdim=True)
            var_bn = (var_in + mean_in.square()).mean(dim=2, keepdim=True) - mean_bn.square()
            w, w_var = self.mean_weight.softmax(0), self.var_weight.softmax(0)
            mean = w[0] * mean_in + w[1] * mean_bn
            var = w_var[0] * var_in + w_var[1] * var_bn
            normalised = (a - mean) * torch.rsqrt(var + self.eps) * self.weight + self.bias
            return normalised.to(self.weight.dtype)


class DLIAM(nn.Module):
    """Dynamic long-term instance aggregation module (Section 3.2, Figure 2b), up to the gate of Eq. 5.

    BiLSTM over the instances -> X; multi-head self-attention -> A; ``X * sigmoid(DMIN(A))``.
    ``(B, N, features)`` -> ``(B, N, out_features)``.

    Args:
        features: size of an instance feature.
        hidden: size of a direction of the BiLSTM.
        lstm: False leaves the BiLSTM out (Table 4, b).
        dmin: False leaves the normalization out (Table 4, c).
        mhsa: False lets X take the place of A (Table 4, d).
    """

    def __init__(self, features: int, hidden: int, lstm: bool = True, dmin: bool = True, mhsa: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True, bidirectional=True) if lstm else None
        self.out_features = 2 * hidden if lstm else features
        self.attention = SelfAttention(self.out_features) if mhsa else nn.Identity()
        self.norm = DMIN(self.out_features) if dmin else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated instances."""
        if self.lstm is not None:
            x, _ = self.lstm(x)
        return x * self.norm(self.attention(x)).sigmoid()


class M3DFELNet(nn.Module):
    """M3DFEL's network: R3D-18 on each 3-D instance, DLIAM, Conv1d aggregation, linear classifier.

    Clips ``(B, 3, T, H, W)``, float, normalised by `mean` and `std` -> logits ``(B, K)`` and bag feature ``(B, D)``.

    Args:
        num_classes: K.
        instances: N, the bag size (Table 3: 1, 2, 4, 8, 16). 1 is the whole clip without aggregation; as many
            instances as frames are single frames through a 2-D ResNet-18.
        frames: T.
        lstm: False leaves the BiLSTM out (Table 4, b).
        dmin: False leaves DMIN out (Table 4, c).
        mhsa: False leaves self-attention out (Table 4, d).
        aggregation: ``dliam``, or ``average`` for the baseline of Table 4, a: the mean of the instances.
        width: channels of the backbone's stem; 64 is the published network. The BiLSTM's hidden size is ``8 * width``.
        pretrained: True for torchvision's Kinetics-400 weights, a path for a local file, False for random weights.
    """

    def __init__(
        self,
        num_classes: int = 7,
        instances: int = 4,
        frames: int = 16,
        lstm: bool = True,
        dmin: bool = True,
        mhsa: bool = True,
        aggregation: Literal["dliam", "average"] = "dliam",
        width: int = FULL_WIDTH,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        self.encoder = InstanceEncoder(instances, frames, width, pretrained)
        self.mean, self.std = self.encoder.mean, self.encoder.std
        features = self.encoder.out_features
        if aggregation == "dliam" and instances > 1:
            self.dliam = DLIAM(features, hidden=features, lstm=lstm, dmin=dmin, mhsa=mhsa)
            self.aggregation = InstanceAggregation(instances)
            features = self.dliam.out_features
        else:
            self.dliam = self.aggregation = None
        self.fc = nn.Linear(features, num_classes)

    def instance_features(self, video: Tensor) -> Tensor:
        """Return the gated instances ``(B, N, D)`` that the aggregation sees."""
        x = self.encoder(video)
        return x if self.dliam is None else self.dliam(x)

    def forward(self, video: Tensor) -> NetOutput:
        """Classify clips."""
        x = self.instance_features(video)
        bag = x.mean(1) if self.aggregation is None else self.aggregation(x)
        return NetOutput(self.fc(bag), bag)

    def instance_logits(self, video: Tensor) -> Tensor:
        """Return what each instance says ``(B, N, K)``; the mean over the instances is the logits of the clip.

        Aggregation and classifier are linear, so the clip's logits decompose exactly (drawn in Figures 3 and 4).
        """
        x = self.instance_features(video)
        return self.fc(x if self.aggregation is None else self.aggregation.contributions(x))

    def load_reference(self, state: Mapping[str, Tensor]) -> "M3DFELNet":
        """Load a checkpoint of the authors' code (TFace, ``attribute/M3DFEL``) and return self.

        Args:
            state: the ``state_dict``; a ``module.`` prefix of DataParallel is accepted.

        Raises:
            CheckpointError: the keys are not those of the reference, or shapes differ.
        """
        state = {key.removeprefix("module."): value for key, value in state.items()}
        load_matching(self, {_from_reference(key): value for key, value in state.items()}, "M3DFELNet")
        return self


_REFERENCE_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
_REFERENCE_PREFIXES = {
    "lstm.": "dliam.lstm.",
    "to_qkv.": "dliam.attention.to_qkv.",
    "norm.": "dliam.norm.",
    "pwconv.": "aggregation.conv.",
    "fc.": "fc.",
}


def _from_reference(key: str) -> str:
    """Translate a key of the authors' code; their ``features`` holds the children of r3d_18 in order."""
    if key.startswith("features."):
        _, stage, rest = key.split(".", 2)
        if stage.isdecimal() and int(stage) < len(_REFERENCE_STAGES):
            return f"encoder.backbone.{_REFERENCE_STAGES[int(stage)]}.{rest}"
    for theirs, ours in _REFERENCE_PREFIXES.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    raise CheckpointError(
        f"{key!r} is no key of the reference's M3DFEL. Expected features.*, {'*, '.join(_REFERENCE_PREFIXES)}*."
    )
