"""HDF's modules against loops over scalars written from its equations, its switches, and its recipe."""

import math

import lightning as L
import pytest
import scipy.fft
import torch
from conftest import fit_quietly
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dfer_zoo.data.base import Batch
from dfer_zoo.errors import InputError
from dfer_zoo.losses import cross_entropy, robust_contrastive
from dfer_zoo.models.hdf import HDF
from dfer_zoo.nets.hdf import (
    DAM,
    AdversarialPerturbation,
    DynamicFitting,
    FrequencyBranch,
    HDFNet,
    TemporalBranch,
    dct_filters,
)

SMALL = {"width_factor": 0.5, "depth_factor": 0.5, "dam_stage": 2}
CLIP = (2, 3, 4, 64, 64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def values(x: Tensor) -> list[float]:
    return x.flatten().tolist()


def test_dct_filters_are_scipys_basis() -> None:
    patch = torch.randn(7, 7, dtype=torch.float64)
    coefficients = (dct_filters().double() * patch).sum((1, 2)).view(7, 7)
    expected = torch.from_numpy(scipy.fft.dctn(patch.numpy(), norm="ortho"))
    torch.testing.assert_close(coefficients, expected, rtol=1e-6, atol=1e-6)


def test_dct_filters_are_orthonormal() -> None:
    basis = dct_filters().flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(49), rtol=0, atol=1e-6)


def test_one_filter_on_the_sum_is_the_filter_repeated_for_every_channel() -> None:
    x = torch.randn(2, 5, 9, 9)
    filters = dct_filters()[:, None]
    repeated = nn.functional.conv2d(x, filters.repeat(1, 5, 1, 1), padding=3)
    torch.testing.assert_close(nn.functional.conv2d(x.sum(1, keepdim=True), filters, padding=3), repeated)


@pytest.mark.parametrize("training", [True, False])
def test_perturbation_is_eq_6(training: bool) -> None:
    perturb = AdversarialPerturbation(2).double().train(training)
    perturb.sign_weight.data.uniform_(0.5, 2)
    perturb.shift_weight.data.uniform_(-1, 1)
    perturb.running_mean.uniform_(-1, 1)
    before = values(perturb.running_mean)
    f = torch.randn(3, 2, 2, 3, dtype=torch.float64)
    out = perturb(f)
    means = [sum(values(f[:, k])) / 18 for k in range(2)] if training else before
    for b in range(3):
        distance = math.sqrt(sum((x - means[k]) ** 2 for k in range(2) for x in values(f[b, k])))
        for k in range(2):
            a, shift = perturb.sign_weight[k].item(), perturb.shift_weight[k].item()
            expected = [x + math.copysign(1, x) * (a * 0.1 + shift * distance) for x in values(f[b, k])]
            assert values(out[b, k]) == pytest.approx(expected)
    after = [0.9 * old + 0.1 * new for old, new in zip(before, means, strict=True)] if training else before
    assert values(perturb.running_mean) == pytest.approx(after)


def test_fitting_is_eq_7() -> None:
    fit = DynamicFitting(2).double()
    fit.scale.data.fill_(0.7)
    fit.weight.data.uniform_(0.5, 2)
    fit.bias.data.uniform_(-1, 1)
    f = 3 * torch.randn(2, 2, 2, 3, dtype=torch.float64)
    out = fit(f)
    for b in range(2):
        clip = values(f[b])
        mean = sum(clip) / len(clip)
        variance = sum((x - mean) ** 2 for x in clip) / len(clip)
        for k in range(2):
            g, beta = fit.weight[k].item(), fit.bias[k].item()
            expected = [math.tanh(0.7 / math.sqrt(variance + 1e-6) * x) * g + beta for x in values(f[b, k])]
            assert values(out[b, k]) == pytest.approx(expected)


def attention(tokens: list[list[float]], matrix: list[list[float]]) -> list[list[float]]:
    """One-head self-attention without output projection; `matrix` stacks the rows of queries, keys and values."""
    size = len(tokens[0])
    projected = [[sum(m * x for m, x in zip(row, token, strict=True)) for row in matrix] for token in tokens]
    out = []
    for token in projected:
        scores = [
            math.exp(sum(token[c] * other[size + c] for c in range(size)) / math.sqrt(size)) for other in projected
        ]
        total = sum(scores)
        out.append(
            [
                sum(s / total * other[2 * size + c] for s, other in zip(scores, projected, strict=True))
                for c in range(size)
            ]
        )
    return out


def test_frequency_branch_is_eq_6_to_8() -> None:
    branch = FrequencyBranch().double().eval()
    x = torch.randn(1, 3, 2, 3, 4, dtype=torch.float64)
    gate = branch(x)
    bank = dct_filters().double().tolist()
    summed = [[sum(values(x[0, :, :, i, j])) / 2 for j in range(4)] for i in range(3)]
    frequencies = torch.zeros(1, 49, 3, 4, dtype=torch.float64)
    for k in range(49):
        for i in range(3):
            for j in range(4):
                frequencies[0, k, i, j] = sum(
                    bank[k][m][n] * summed[i + m - 3][j + n - 3]
                    for m in range(7)
                    for n in range(7)
                    if 0 <= i + m - 3 < 3 and 0 <= j + n - 3 < 4
                )
    fitted = branch.fitting(branch.perturbation(frequencies))[0]
    tokens = [values(fitted[:, i, j]) for i in range(3) for j in range(4)]
    attended = attention(tokens, branch.attention.to_qkv.weight.tolist())
    weight, bias = values(branch.to_map.weight), branch.to_map.bias.item()
    expected = [
        sigmoid(sum(w * (t + a) for w, t, a in zip(weight, token, other, strict=True)) + bias)
        for token, other in zip(tokens, attended, strict=True)
    ]
    assert gate.shape == (1, 1, 1, 3, 4)
    assert values(gate) == pytest.approx(expected, rel=1e-5)


def test_temporal_branch_is_eq_9_and_10() -> None:
    frames, channels = 3, 6
    branch = TemporalBranch(groups=3).double()
    branch.average_weight.data.fill_(0.3)
    branch.maximum_weight.data.fill_(0.8)
    branch.descriptor_weight.data.fill_(1.5)
    branch.drift_weight.data.fill_(0.4)
    x = torch.randn(1, channels, frames, 2, 2, dtype=torch.float64)
    average, maximum = [], []
    for t in range(frames):
        groups = [values(x[0, 2 * g : 2 * g + 2, t]) for g in range(3)]
        average.append([sum(group) / len(group) for group in groups])
        maximum.append([max(group) for group in groups])
    overall = [sum(row[g] for row in average) / frames for g in range(3)]
    expected = []
    for t in range(frames):
        drift = math.dist(average[t], overall)
        change = math.dist(average[t], average[t - 1]) if t else 0.0
        expected.append(
            [sigmoid(1.5 * (0.3 * average[t][g] + 0.8 * maximum[t][g]) + 0.4 * drift - change) for g in range(3)]
        )
    torch.testing.assert_close(branch.temporal_attention(x)[0], torch.tensor(expected, dtype=torch.float64))
    attended = attention(expected, branch.attention.to_qkv.weight.tolist())
    gates = [sigmoid(sum(row) / 3) for row in attended]
    assert branch(x).shape == (1, 1, frames, 1, 1)
    assert values(branch(x)) == pytest.approx(gates)


def test_fusion_is_eq_11_and_12() -> None:
    dam = DAM(4, groups=3).double().eval()
    x = torch.randn(1, 4, 3, 7, 8, dtype=torch.float64)
    x_s, x_t = x * dam.frequency(x) + x, x * dam.temporal(x) + x
    score_s, score_t = (
        sum(w * sum(values(branch[0, c])) / 168 for c, w in enumerate(values(linear.weight))) + linear.bias.item()
        for branch, linear in ((x_s, dam.frequency_score), (x_t, dam.temporal_score))
    )
    weight_s = math.exp(score_s) / (math.exp(score_s) + math.exp(score_t))
    torch.testing.assert_close(dam(x), weight_s * x_s + (1 - weight_s) * x_t)


@pytest.mark.parametrize(("frequency", "temporal"), [(True, True), (True, False), (False, True)])
@given(frames=st.integers(1, 5), height=st.integers(7, 9), width=st.integers(7, 9))
@settings(max_examples=10, deadline=None)
def test_dam_with_zero_maps_scales_by_one_and_a_half(
    frequency: bool, temporal: bool, frames: int, height: int, width: int
) -> None:
    dam = DAM(5, groups=4, frequency=frequency, temporal=temporal)
    if frequency:
        nn.init.zeros_(dam.frequency.to_map.weight)
        nn.init.zeros_(dam.frequency.to_map.bias)
    if temporal:
        nn.init.zeros_(dam.temporal.attention.to_qkv.weight)
    x = torch.randn(2, 5, frames, height, width)
    torch.testing.assert_close(dam(x), 1.5 * x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fill", [0.0, 1.0, 1e4])
def test_dam_of_a_constant_map_has_finite_gradients(fill: float, dtype: torch.dtype) -> None:
    dam = DAM(4, groups=4)
    nn.init.ones_(dam.frequency.perturbation.shift_weight)
    x = torch.full((2, 4, 4, 8, 8), fill, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = dam(x.to(dtype))
    out.float().sum().backward()
    assert out.isfinite().all()
    assert all(t.grad.isfinite().all() for t in (x, *dam.parameters()))


def make_net(**options: object) -> HDFNet:
    torch.manual_seed(0)
    return HDFNet(frames=4, **{**SMALL, **options})


def open_residual_branches(net: nn.Module) -> None:
    """X3D starts its residual branches at zero, by the last normalisation of each, which hides their gradients."""
    for name, parameter in net.named_parameters():
        if name.endswith("norm_c.weight"):
            nn.init.constant_(parameter, 0.5)


@pytest.mark.parametrize(
    "options",
    [{}, {"dam": False}, {"frequency": False}, {"temporal": False}, {"dam_stage": 1}],
    ids=str,
)
def test_every_switch_runs_and_reaches_every_parameter(options: dict[str, object]) -> None:
    net = make_net(**options)
    open_residual_branches(net)
    output = net(torch.randn(CLIP))
    assert output.logits.shape == (2, 7)
    assert output.features.shape == (2, net.out_features)
    output.logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 64, 64), (5, 64, 80), (16, 72, 64)])
def test_any_length_and_size(frames: int, height: int, width: int) -> None:
    assert make_net()(torch.randn(2, 3, frames, height, width)).logits.shape == (2, 7)


@pytest.mark.filterwarnings("ignore")
def test_it_exports_with_any_batch_size() -> None:
    net = make_net().eval()
    exported = torch.export.export(net, (torch.randn(CLIP),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    clips = torch.randn(5, *CLIP[1:])
    torch.testing.assert_close(exported.module()(clips), net(clips), rtol=1e-4, atol=1e-5)


def test_clips_do_not_depend_on_their_batch_at_evaluation() -> None:
    net = make_net()
    nn.init.ones_(net.dam.frequency.perturbation.shift_weight)
    net(torch.randn(CLIP))  # fills the running mean
    net.eval()
    clips = torch.randn(CLIP)
    both = net(clips).logits
    torch.testing.assert_close(torch.cat([net(clip[None]).logits for clip in clips]), both, rtol=1e-4, atol=1e-5)


def test_bf16_is_near_float32_and_its_gradients_are_finite() -> None:
    net = make_net().eval()
    clips = torch.randn(CLIP)
    exact = net(clips).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(clips).logits
    assert (logits - exact).abs().max() < 0.05 * max(exact.std(), 0.1)
    logits.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("size", "stage"), [(160, 3), (64, 2), (48, 1)])
def test_dam_takes_the_last_place_that_fits(size: int, stage: int) -> None:
    net = make_net(size=size, dam_stage=None)
    assert net.dam_stage == stage
    net(torch.randn(1, 3, 4, size, size))


def test_wrong_places_for_dam_are_refused() -> None:
    with pytest.raises(InputError, match="1, 2, 3 and 4"):
        make_net(dam_stage=0)
    with pytest.raises(InputError, match="4x4"):
        make_net(dam_stage=3)(torch.randn(CLIP))
    with pytest.raises(InputError, match="25 px"):
        make_net(size=24, dam_stage=None)
    make_net(size=24, dam_stage=None, dam=False)
    with pytest.raises(InputError, match="dam: false"):
        make_net(frequency=False, temporal=False)


class RandomClips(L.LightningDataModule):
    """Two batches of random clips, with the attributes that the models read from a data module."""

    seed, class_counts = 0, [50, 20, 10, 10, 5, 3, 2]

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(0)
        video = torch.randint(0, 256, (2, 4, 3, 4, 32, 32), generator=generator, dtype=torch.uint8)
        return DataLoader(
            [Batch(clips, torch.tensor([0, 0, 3, 6]), list("abcd"), {}) for clips in video], batch_size=None
        )


def make_model(**options: object) -> HDF:
    torch.manual_seed(0)
    tiny = {"frames": 4, "size": 32, "width": 16, "depth_factor": 0.5, "dropout": 0.2, "pretrained": False}
    return HDF(warmup_epochs=0, lr=1e-3, **{**tiny, **options})


def fit(model: L.LightningModule, epochs: int = 1, **trainer: object) -> L.Trainer:
    return fit_quietly(model, RandomClips(), max_epochs=epochs, **trainer)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dam": False, "dsm": False},
        {"dam": False},
        {"dsm": False},
        {"temporal": False},
        {"frequency": False},
        {"rho": 0.0},
        {"ial": 0.1, "class_weighted": True, "logit_adjustment": 1.0},
    ],
    ids=str,
)
def test_recipe_trains_with_every_switch(options: dict[str, object]) -> None:
    model = make_model(**options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    logged = fit(model, epochs=2).callback_metrics
    assert all(p.isfinite().all() for p in model.parameters())
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    terms = {name.removeprefix("train_") for name in logged}
    assert terms == {"loss", "ce"} | ({"ial"} if "ial" in options else set()) | (
        {"contrastive", "gradient_norm"} if options.get("dsm", True) else set()
    )


def first_batch() -> Batch:
    return RandomClips().train_dataloader().dataset[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "trainer", [{}, {"gradient_clip_val": 1e-3}, {"gradient_clip_val": 1e-3, "precision": "bf16-mixed"}]
)
def test_gradient_norm_is_that_of_the_unweighted_sum_before_clipping(trainer: dict[str, object]) -> None:
    model = make_model(dropout=0.0)
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled="precision" in trainer):
        output = model(first_batch().video)
    label = first_batch().label
    (cross_entropy(output.logits, label, 0.1) + robust_contrastive(output.features, label)).backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    fitted = make_model(dropout=0.0)
    logged = fit(fitted, limit_train_batches=1, **trainer).callback_metrics
    torch.testing.assert_close(logged["train_gradient_norm"], expected, rtol=1e-3, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_single_pass_uses_the_gradient_of_feature_and_classifier() -> None:
    model = make_model(dropout=0.0)
    model.train()
    output, label = model(first_batch().video), first_batch().label
    output.features.retain_grad()
    (cross_entropy(output.logits, label, 0.1) + robust_contrastive(output.features, label)).backward()
    gradients = [output.features.grad, model.net.fc.weight.grad, model.net.fc.bias.grad]
    expected = math.sqrt(sum(g.square().sum().item() for g in gradients))
    logged = fit(make_model(dropout=0.0, rho=0.0), limit_train_batches=1).callback_metrics
    assert logged["train_gradient_norm"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_loss_is_eq_16_and_17(rho: float) -> None:
    logged = fit(make_model(rho=rho)).callback_metrics
    logged = {name.removeprefix("train_"): value.item() for name, value in logged.items()}
    g = logged["gradient_norm"]
    expected = 10 * g / (g + 1) * logged["ce"] + 0.1 / (g + 1) * logged["contrastive"]
    assert logged["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_running_statistics_are_those_of_the_first_pass() -> None:
    model = make_model(dropout=0.0)
    twin = make_model(dropout=0.0).train()
    fit(model, limit_train_batches=1)
    twin(first_batch().video)
    for (name, ours), theirs in zip(model.net.named_buffers(), twin.net.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_sam_refuses_gradient_accumulation() -> None:
    with pytest.raises(InputError, match="accumulate_grad_batches is 2"):
        fit(make_model(), accumulate_grad_batches=2)
    fit(make_model(rho=0.0), accumulate_grad_batches=2)


@pytest.mark.filterwarnings("ignore")
def test_recipe_trains_in_bf16() -> None:
    model = make_model()
    fit(model, precision="bf16-mixed")
    assert all(p.isfinite().all() for p in model.parameters())
