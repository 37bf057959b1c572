"""M3DFEL's modules against loops over scalars, its ablations, and the authors' checkpoints."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.video import r3d_18

from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.nets.bag import InstanceAggregation, InstanceEncoder, SelfAttention, split_into_instances
from dfer_zoo.nets.m3dfel import DLIAM, DMIN, M3DFELNet

CLIP = (2, 3, 16, 32, 32)

ABLATIONS = [
    {},
    *({"instances": n} for n in (1, 2, 8, 16)),
    {"lstm": False},
    {"dmin": False},
    {"mhsa": False},
    {"aggregation": "average"},
    {"lstm": False, "dmin": False, "mhsa": False},
]

shapes = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 4))  # B, N, D


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(scores: list[float]) -> list[float]:
    exponentials = [math.exp(s - max(scores)) for s in scores]
    return [e / sum(exponentials) for e in exponentials]


def float64(rows: list) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Return the module in float64 with normal parameters: at their start some of them would not show."""
    module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def dmin_of_one_bag(norm: DMIN, bag: list[list[float]]) -> list[list[float]]:
    """Eq. 1-4 with the statistics of the authors' code, for one bag of N instances with D channels."""
    n, d = len(bag), len(bag[0])
    mean_in = [sum(row[c] for row in bag) / n for c in range(d)]
    var_in = [sum((row[c] - mean_in[c]) ** 2 for row in bag) / (n - 1) for c in range(d)]
    mean_bn = sum(mean_in) / d
    var_bn = sum(var_in[c] + mean_in[c] ** 2 for c in range(d)) / d - mean_bn**2
    w_in, w_bn = softmax(norm.mean_weight.tolist())
    v_in, v_bn = softmax(norm.var_weight.tolist())
    return [
        [
            norm.weight[c].item()
            * (row[c] - (w_in * mean_in[c] + w_bn * mean_bn))
            / math.sqrt(v_in * var_in[c] + v_bn * var_bn + 1e-5)
            + norm.bias[c].item()
            for c in range(d)
        ]
        for row in bag
    ]


@given(shape=shapes, seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_dmin_is_eq_1_to_4(shape: tuple[int, int, int], seed: int) -> None:
    torch.manual_seed(seed)
    norm = randomised(DMIN(shape[2]))
    x = 3 * torch.randn(shape, dtype=torch.float64) + 1
    expected = float64([dmin_of_one_bag(norm, bag) for bag in x.tolist()])
    torch.testing.assert_close(norm(x), expected)


def test_dmin_computes_in_float32_under_autocast() -> None:
    norm, x = DMIN(8), 100 + torch.randn(2, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x.bfloat16()), norm(x.bfloat16().float()))


def test_dmin_of_identical_instances_is_finite() -> None:
    x = torch.ones(2, 4, 8, requires_grad=True)
    DMIN(8)(x).square().sum().backward()
    assert x.grad.isfinite().all()


@given(batch=st.integers(1, 2), instances=st.integers(1, 5), heads=st.integers(1, 3), size=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_self_attention_is_scaled_dot_products_of_each_head(batch: int, instances: int, heads: int, size: int) -> None:
    d = heads * size
    attention = randomised(SelfAttention(d, heads))
    weight = attention.to_qkv.weight.tolist()
    assert attention.to_qkv.bias is None
    x = torch.randn(batch, instances, d, dtype=torch.float64)
    expected = []
    for bag in x.tolist():
        q, k, v = (
            [
                [sum(w * value for w, value in zip(weight[part * d + c], row, strict=True)) for c in range(d)]
                for row in bag
            ]
            for part in range(3)
        )
        mixed = [[0.0] * d for _ in bag]
        for channel in range(d):
            head = range(channel // size * size, (channel // size + 1) * size)
            for i in range(instances):
                scores = [sum(q[i][c] * k[j][c] for c in head) / math.sqrt(size) for j in range(instances)]
                mixed[i][channel] = sum(p * v[j][channel] for j, p in enumerate(softmax(scores)))
        expected.append(mixed)
    torch.testing.assert_close(attention(x), float64(expected))


@given(shape=shapes)
@settings(max_examples=20, deadline=None)
def test_aggregation_slides_a_kernel_over_the_features(shape: tuple[int, int, int]) -> None:
    _, instances, d = shape
    aggregation = randomised(InstanceAggregation(instances))
    kernel, bias = aggregation.conv.weight[0].tolist(), aggregation.conv.bias.item()
    x = torch.randn(shape, dtype=torch.float64)
    expected = [
        [
            bias
            + sum(
                kernel[n][tap] * bag[n][c + tap - 1]
                for n in range(instances)
                for tap in range(3)
                if 0 <= c + tap - 1 < d
            )
            for c in range(d)
        ]
        for bag in x.tolist()
    ]
    torch.testing.assert_close(aggregation(x), float64(expected))
    torch.testing.assert_close(aggregation.contributions(x).mean(1), aggregation(x))


def test_contribution_of_an_instance_does_not_depend_on_the_others() -> None:
    aggregation = randomised(InstanceAggregation(4))
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, 2] += 1
    same = (aggregation.contributions(x) == aggregation.contributions(changed)).all(2)[0]
    assert same.tolist() == [True, True, False, True]


@pytest.mark.parametrize("dmin", [True, False])
@pytest.mark.parametrize("mhsa", [True, False])
@pytest.mark.parametrize("lstm", [True, False])
def test_dliam_gates_the_lstms_states(lstm: bool, mhsa: bool, dmin: bool) -> None:
    dliam = DLIAM(16, 8, lstm=lstm, dmin=dmin, mhsa=mhsa).double()
    x = torch.randn(2, 4, 16, dtype=torch.float64)
    states = dliam.lstm(x)[0] if lstm else x
    a = dliam.attention(states) if mhsa else states
    bags = [dmin_of_one_bag(dliam.norm, bag) for bag in a.tolist()] if dmin else a.tolist()
    gates = float64([[[sigmoid(value) for value in row] for row in bag] for bag in bags])
    torch.testing.assert_close(dliam(x), states * gates)


@given(instances=st.sampled_from([1, 2, 4, 8, 16]))
def test_instances_are_consecutive_frames(instances: int) -> None:
    video = torch.arange(16.0).view(1, 1, 16, 1, 1).expand(2, 3, 16, 2, 2)
    bag = split_into_instances(video, instances)
    assert bag.shape == (2, instances, 3, 16 // instances, 2, 2)
    assert bag[1, :, 2, :, 0, 1].flatten().tolist() == list(range(16))
    assert bag[0, -1, 0, 0, 0, 0] == 16 - 16 // instances


@pytest.mark.parametrize("instances", [3, 5, 32])
def test_bag_size_that_does_not_divide_the_clip_is_refused(instances: int) -> None:
    with pytest.raises(InputError, match=r"Allowed here: 1, 2, 4, 8, 16"):
        split_into_instances(torch.zeros(1, 3, 16, 2, 2), instances)
    with pytest.raises(InputError, match=f"{instances} instances"):
        M3DFELNet(instances=instances, width=4)


def test_bag_of_no_instances_is_refused() -> None:
    with pytest.raises(InputError, match="0 instances"):
        M3DFELNet(instances=0, width=4)


def test_an_instance_is_encoded_by_itself() -> None:
    encoder = InstanceEncoder(4, 16, width=4).eval()
    video = torch.randn(1, 3, 16, 32, 32)
    changed = video.clone()
    changed[:, :, 4:8] += 1
    with torch.no_grad():
        moved = (encoder(video) - encoder(changed)).abs().amax(2)[0]
    assert (moved > 1e-6).tolist() == [False, True, False, False]


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_every_ablation_runs_and_reaches_every_parameter(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = M3DFELNet(width=4, **options)
    logits, features = net(torch.randn(CLIP))
    assert logits.shape == (2, 7)
    assert features.shape == (2, net.fc.in_features)
    logits.square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_instance_logits_average_to_the_clips(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = M3DFELNet(width=4, **options).eval()
    video = torch.randn(CLIP)
    with torch.no_grad():
        instance_logits = net.instance_logits(video)
        torch.testing.assert_close(instance_logits.mean(1), net(video).logits, rtol=1e-4, atol=1e-5)
    assert instance_logits.shape == (2, options.get("instances", 4), 7)


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_a_clip_does_not_depend_on_its_batch_at_evaluation(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = M3DFELNet(width=4, **options).eval()
    video = torch.randn(CLIP)
    with torch.no_grad():
        together, alone = net(video), net(video[1:])
    torch.testing.assert_close(together.logits[1:], alone.logits, rtol=1e-4, atol=1e-6)


def test_a_batch_of_one_clip_trains() -> None:
    net = M3DFELNet(width=4)
    net(torch.randn(1, *CLIP[1:])).logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_published_size() -> None:
    assert sum(p.numel() for p in M3DFELNet().parameters()) == pytest.approx(46.8e6, rel=0.01)


class Reference(nn.Module):
    """The forward pass of the authors' public code, restated; what it calls its parts names the checkpoint's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(r3d_18(weights=None).children())[:-1])
        self.lstm = nn.LSTM(512, 512, num_layers=2, batch_first=True, bidirectional=True)
        self.to_qkv = nn.Linear(1024, 3072, bias=False)
        self.norm = nn.Module()
        for name, value in {
            "weight": torch.randn(1024),
            "bias": torch.randn(1024),
            "mean_weight": torch.randn(2),
            "var_weight": torch.randn(2),
        }.items():
            self.norm.register_parameter(name, nn.Parameter(value))
        self.pwconv = nn.Conv1d(4, 1, 3, padding=1)
        self.fc = nn.Linear(1024, 7)

    def forward(self, video: Tensor) -> Tensor:
        batch = len(video)
        instances = torch.cat([video[:, :, 4 * n : 4 * n + 4] for n in range(4)])  # instance by instance
        x = self.features(instances).view(4, batch, 512).transpose(0, 1)
        x, _ = self.lstm(x)
        q, k, v = (self.to_qkv(x)[..., part * 1024 : part * 1024 + 1024].view(batch, 4, 8, 128) for part in range(3))
        attention = (torch.einsum("bihd,bjhd->bhij", q, k) * 128**-0.5).softmax(-1)
        a = torch.einsum("bhij,bjhd->bihd", attention, v).reshape(batch, 4, 1024)
        mean_in, var_in = a.mean(1, keepdim=True), a.var(1, keepdim=True)
        mean_bn = mean_in.mean(2, keepdim=True)
        var_bn = (var_in + mean_in**2).mean(2, keepdim=True) - mean_bn**2
        w, u = F.softmax(self.norm.mean_weight, 0), F.softmax(self.norm.var_weight, 0)
        normed = (a - w[0] * mean_in - w[1] * mean_bn) / (u[0] * var_in + u[1] * var_bn + 1e-5).sqrt()
        gated = x * torch.sigmoid(normed * self.norm.weight + self.norm.bias)
        return self.fc(self.pwconv(gated).squeeze(1))


def test_reference_checkpoint_gives_the_references_logits() -> None:
    torch.manual_seed(0)
    reference = Reference().eval()
    for prefix in ("", "module."):
        state = {prefix + key: value for key, value in reference.state_dict().items()}
        net = M3DFELNet().load_reference(state).eval()
    video = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        expected = reference(video)
        torch.testing.assert_close(net(video).logits, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-3  # not all the same


def test_wrong_keys_and_shapes_of_a_reference_checkpoint_are_refused() -> None:
    net = M3DFELNet(width=4)
    with pytest.raises(CheckpointError, match=r"'head\.weight' is no key"):
        net.load_reference({"head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'features\.5\.weight' is no key"):
        net.load_reference({"features.5.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="do not fit M3DFELNet"):
        net.load_reference({"fc.bias": torch.zeros(7)})
    with pytest.raises(CheckpointError, match="do not fit M3DFELNet"):
        net.load_reference(Reference().state_dict())
