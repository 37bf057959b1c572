"""MICACL: multi-instance category-aware contrastive learning.

Reference:
    Cui et al., "MICACL: Multi-Instance Category-Aware Contrastive Learning for Long-Tailed Dynamic Facial Expression
    Recognition", ISPA 2025. Section, equation and table numbers below are that paper's. There is no public code.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dfer_zoo.errors import InputError
from dfer_zoo.nets.bag import InstanceAggregation, InstanceEncoder, NetOutput, SelfAttention
from dfer_zoo.nets.r3d import FULL_WIDTH

InstanceWeights = Literal["instance", "channel"]


class GEIIM(nn.Module):
    """Graph-enhanced instance interaction module (Eq. 1-2): ``(B, N, D)`` -> ``(B, N, D)``.

    ``A = softmax(relu(N1 N2))`` over each row, ``H = a X + (1 - a) A X`` with a = sigmoid of a learned scalar, which
    starts at 0.5. The text adds "multiscale convolutions" that stand in no equation; here they are depthwise
    convolutions over the instances, averaged and added to H.

    Args:
        features: D.
        instances: N.
        embedding: d, size of the node embeddings N1 ``(N, d)`` and N2 ``(d, N)``; the paper prints none, 10 is Graph
            WaveNet's, whose adaptive adjacency matrix has the same formula.
        kernels: odd sizes of the convolutions, in instances; empty leaves them out. The paper prints none.
    """

    def __init__(
        self, features: int, instances: int, embedding: int = 10, kernels: tuple[int, ...] = (1, 3, 5)
    ) -> None:
        super().__init__()
        self.source_nodes = nn.Parameter(torch.randn(instances, embedding))
        self.target_nodes = nn.Parameter(torch.randn(embedding, instances))
        self.balance = nn.Parameter(torch.zeros(()))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(features, features, kernel, padding=kernel // 2, groups=features) for kernel in kernels
        )

    def adjacency(self) -> Tensor:
        """Return A of Eq. 1, ``(N, N)``, each row a distribution over the instances."""
        return (self.source_nodes @ self.target_nodes).relu().softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Let the instances interact."""
        a = self.balance.sigmoid()
        h = a * x + (1 - a) * (self.adjacency() @ x)
        if self.convolutions:
            channels_first = h.transpose(1, 2)
            scales = torch.stack([convolution(channels_first) for convolution in self.convolutions])
            h = h + scales.mean(0).transpose(1, 2)
        return h


class WeightedLSTM(nn.Module):
    """One direction of one layer of WIAN: an LSTM with the dynamic weight gate (Eq. 3, 5, 6).

    ``d_t = sigmoid(W_s x_t + U_s h_{t-1}) w_t`` scales what enters the cell, ``c_t = f_t c_{t-1} + i_t c~_t d_t``. With
    d equal to one it is `torch.nn.LSTM`, whose order of gates (i, f, c~, o) and initial distribution it has.

    Args:
        features: size of the input.
        hidden: size of the hidden state.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.input_gates = nn.Linear(features, 4 * hidden)
        self.hidden_gates = nn.Linear(hidden, 4 * hidden, bias=False)
        self.input_weight = nn.Linear(features, hidden, bias=False)  # W_s of Eq. 3, which has no bias
        self.hidden_weight = nn.Linear(hidden, hidden, bias=False)  # U_s
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Run over the instances.

        Args:
            x: ``(B, N, features)``.
            weights: w of Eq. 4, ``(B, N, 1)`` or ``(B, N, hidden)``.

        Returns:
            The hidden states ``(B, N, hidden)``.
        """
        from_input, weight_from_input = self.input_gates(x), self.input_weight(x)
        h = c = x.new_zeros(x.shape[0], self.hidden_weight.in_features)
        states = []
        for t in range(x.shape[1]):
            i, f, candidate, o = (from_input[:, t] + self.hidden_gates(h)).chunk(4, dim=1)
            d = (weight_from_input[:, t] + self.hidden_weight(h)).sigmoid() * weights[:, t]
            c = f.sigmoid() * c + i.sigmoid() * candidate.tanh() * d
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, dim=1)


class WIAN(nn.Module):
    """Weighted instance aggregation network (Eq. 3-6): ``(B, N, D)`` -> ``(B, N, 2 D)``.

    A bidirectional LSTM of two layers with hidden size D, as M3DFEL's, with the dynamic weight gate in every cell. The
    instance weights w come from GEIIM's output alone and are shared by layers and directions.

    Args:
        features: D.
        weights: reading of Eq. 4. "channel" is the printed softmax over the last axis, the channels, times their
            number; "instance" is a softmax over the instances of a learned score, times their number, which is what the
            text describes. The factors are not printed: they make the mean weight 1, as 1 / D would starve the cell.
        layers: number of layers.
    """

    def __init__(self, features: int, weights: InstanceWeights = "instance", layers: int = 2) -> None:
        super().__init__()
        if weights not in get_args(InstanceWeights):
            raise InputError(f"weights is {weights!r}; allowed: {', '.join(get_args(InstanceWeights))}.")
        self.score = nn.Linear(features, 1, bias=False) if weights == "instance" else None
        sizes = [features] + [2 * features] * (layers - 1)
        self.forwards = nn.ModuleList(WeightedLSTM(size, features) for size in sizes)
        self.backwards = nn.ModuleList(WeightedLSTM(size, features) for size in sizes)

    def instance_weights(self, h: Tensor) -> Tensor:
        """Return w of Eq. 4, of mean 1: ``(B, N, 1)`` for "instance", ``(B, N, D)`` for "channel"."""
        if self.score is None:
            return h.softmax(dim=2) * h.shape[2]
        return self.score(h).softmax(dim=1) * h.shape[1]

    def forward(self, h: Tensor) -> Tensor:
        """Return the hidden states of the last layer, both directions side by side."""
        weights = self.instance_weights(h)
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            reverse = backwards(h.flip(1), weights.flip(1)).flip(1)
            h = torch.cat([forwards(h, weights), reverse], dim=2)
        return h


class MICACLNet(nn.Module):
    """MICACL's network: R3D-18 on each instance, GEIIM, WIAN, self-attention, Conv1d aggregation, linear classifier.

    Clips ``(B, 3, T, H, W)``, float, normalised by `mean` and `std` -> logits ``(B, K)`` and bag feature ``(B, D)``.
    With neither GEIIM nor WIAN it is the paper's baseline, R3D, self-attention and Conv1d (Table III, a).
    Self-attention is M3DFEL's, with a residual around it.

    Args:
        num_classes: K.
        instances: N, the bag size, as in M3DFEL.
        frames: T.
        geiim: False leaves GEIIM out (Table III).
        wian: False leaves WIAN out (Table III); the bag feature then has half the size.
        multiscale: False leaves the convolutions out of GEIIM.
        weights: reading of Eq. 4, see `WIAN`.
        width: channels of the backbone's stem; 64 is the published network. WIAN's hidden size is ``8 * width``.
        pretrained: True for torchvision's Kinetics-400 weights, a path for a local file, False for random weights.
    """

    def __init__(
        self,
        num_classes: int = 7,
        instances: int = 4,
        frames: int = 16,
        geiim: bool = True,
        wian: bool = True,
        multiscale: bool = True,
        weights: InstanceWeights = "instance",
        width: int = FULL_WIDTH,
        pretrained: bool | str = False,
    ) -> None:
        super().__init__()
        self.encoder = InstanceEncoder(instances, frames, width, pretrained)
        self.mean, self.std = self.encoder.mean, self.encoder.std
        features = self.encoder.out_features
        kernels = (1, 3, 5) if multiscale else ()
        self.geiim = GEIIM(features, instances, kernels=kernels) if geiim else nn.Identity()
        self.wian = WIAN(features, weights) if wian else nn.Identity()
        self.out_features = 2 * features if wian else features
        self.attention = SelfAttention(self.out_features)
        self.aggregation = InstanceAggregation(instances)
        self.fc = nn.Linear(self.out_features, num_classes)

    def instance_features(self, video: Tensor) -> Tensor:
        """Return the instances ``(B, N, D)`` that the aggregation sees."""
        x = self.wian(self.geiim(self.encoder(video)))
        return x + self.attention(x)

    def forward(self, video: Tensor) -> NetOutput:
        """Classify clips."""
        bag = self.aggregation(self.instance_features(video))
        return NetOutput(self.fc(bag), bag)

    def instance_logits(self, video: Tensor) -> Tensor:
        """Return what each instance says ``(B, N, K)``; the mean over the instances is the logits of the clip.

        Aggregation and classifier are linear, so the clip's logits decompose exactly.
        """
        return self.fc(self.aggregation.contributions(self.instance_features(video)))
