"""MICACL's modules against loops over scalars written from its equations, its switches, and its recipe."""

import itertools
import math

import lightning as L
import pytest
import torch
from conftest import fit_quietly
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

from dfer_zoo.data.base import Batch
from dfer_zoo.errors import InputError
from dfer_zoo.models.micacl import MICACL
from dfer_zoo.nets.micacl import GEIIM, WIAN, MICACLNet, WeightedLSTM

CLIP = (2, 3, 16, 32, 32)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@given(instances=st.integers(1, 6), features=st.integers(1, 4), balance=st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_geiim_is_eq_1_and_2(instances: int, features: int, balance: float) -> None:
    geiim = GEIIM(features, instances, embedding=3, kernels=()).double()
    geiim.balance.data.fill_(balance)
    x = torch.randn(1, instances, features, dtype=torch.float64)
    n1, n2, rows = geiim.source_nodes.tolist(), geiim.target_nodes.tolist(), x[0].tolist()
    a = sigmoid(balance)
    expected = []
    for i in range(instances):
        scores = [max(0.0, sum(n1[i][k] * n2[k][j] for k in range(3))) for j in range(instances)]
        total = sum(math.exp(s) for s in scores)
        mixed = [sum(math.exp(s) / total * rows[j][c] for j, s in enumerate(scores)) for c in range(features)]
        expected.append([a * own + (1 - a) * other for own, other in zip(rows[i], mixed, strict=True)])
    torch.testing.assert_close(geiim(x)[0], torch.tensor(expected, dtype=torch.float64))


def test_geiim_keeps_the_instances_when_a_is_one() -> None:
    geiim = GEIIM(5, 4, kernels=())
    geiim.balance.data.fill_(50)
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(geiim(x), x)


def test_multiscale_convolutions_are_added_per_channel() -> None:
    geiim = GEIIM(3, 4).double()
    plain = GEIIM(3, 4, kernels=()).double()
    plain.load_state_dict(geiim.state_dict(), strict=False)
    x = torch.randn(1, 4, 3, dtype=torch.float64)
    h = plain(x)
    expected = h.clone()
    for convolution, (n, c) in itertools.product(geiim.convolutions, itertools.product(range(4), range(3))):
        kernel, half = convolution.weight[c, 0], convolution.weight.shape[2] // 2
        around = [(k, n + k - half) for k in range(len(kernel)) if 0 <= n + k - half < 4]
        expected[0, n, c] += (sum(kernel[k] * h[0, m, c] for k, m in around) + convolution.bias[c]) / 3
    torch.testing.assert_close(geiim(x), expected)


def test_weighted_lstm_is_eq_3_5_and_6() -> None:
    lstm = WeightedLSTM(3, 2).double()
    x, w = torch.randn(1, 4, 3, dtype=torch.float64), torch.rand(1, 4, 2, dtype=torch.float64)
    gates, bias = lstm.input_gates.weight.tolist(), lstm.input_gates.bias.tolist()
    recurrent = lstm.hidden_gates.weight.tolist()
    w_s, u_s = lstm.input_weight.weight.tolist(), lstm.hidden_weight.weight.tolist()
    h, c, states = [0.0, 0.0], [0.0, 0.0], []
    for x_t, w_t in zip(x[0].tolist(), w[0].tolist(), strict=True):
        z = [dot(gates[r], x_t) + bias[r] + dot(recurrent[r], h) for r in range(8)]
        d = [sigmoid(dot(w_s[j], x_t) + dot(u_s[j], h)) * w_t[j] for j in range(2)]
        c = [sigmoid(z[2 + j]) * c[j] + sigmoid(z[j]) * math.tanh(z[4 + j]) * d[j] for j in range(2)]
        h = [sigmoid(z[6 + j]) * math.tanh(c[j]) for j in range(2)]
        states.append(h)
    torch.testing.assert_close(lstm(x, w)[0], torch.tensor(states, dtype=torch.float64))


def test_wian_with_its_gate_at_one_is_a_torch_lstm() -> None:
    wian = WIAN(6).double()
    torch_lstm = nn.LSTM(6, 6, num_layers=2, batch_first=True, bidirectional=True).double()
    for layer in range(2):
        for suffix, direction in (("", wian.forwards[layer]), ("_reverse", wian.backwards[layer])):
            nn.init.zeros_(direction.input_weight.weight)  # sigmoid(0) = 0.5 ...
            nn.init.zeros_(direction.hidden_weight.weight)
            name = f"_l{layer}{suffix}"
            getattr(torch_lstm, "weight_ih" + name).data.copy_(direction.input_gates.weight)
            getattr(torch_lstm, "weight_hh" + name).data.copy_(direction.hidden_gates.weight)
            getattr(torch_lstm, "bias_ih" + name).data.copy_(direction.input_gates.bias)
            getattr(torch_lstm, "bias_hh" + name).data.zero_()
    wian.instance_weights = lambda h: torch.full_like(h, 2)  # ... times 2
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(wian(x), torch_lstm(x)[0])


@pytest.mark.parametrize("reading", ["instance", "channel"])
def test_both_readings_of_eq_4(reading: str) -> None:
    wian = WIAN(6, weights=reading).double()
    h = torch.randn(2, 4, 6, dtype=torch.float64)
    weights = wian.instance_weights(h)
    torch.testing.assert_close(weights.mean(), torch.ones((), dtype=torch.float64))
    if reading == "channel":
        row = [math.exp(x) for x in h[1, 2].tolist()]
        expected = [6 * x / sum(row) for x in row]
    else:
        scores = [math.exp(dot(wian.score.weight[0].tolist(), instance)) for instance in h[1].tolist()]
        expected = [4 * scores[2] / sum(scores)]
    assert weights[1, 2].tolist() == pytest.approx(expected)


def make_net(**options: object) -> MICACLNet:
    torch.manual_seed(0)
    return MICACLNet(width=8, **options)


SWITCHES = [
    {"geiim": geiim, "wian": wian, "weights": weights, "multiscale": multiscale}
    for geiim, wian, weights, multiscale in itertools.product(
        (False, True), (False, True), ("instance", "channel"), (False, True)
    )
    if (wian or weights == "instance") and (geiim or multiscale)
]


@pytest.mark.parametrize("options", SWITCHES, ids=str)
def test_every_switch_runs_and_reaches_every_parameter(options: dict[str, object]) -> None:
    net = make_net(**options)
    output = net(torch.randn(CLIP))
    assert output.logits.shape == (2, 7)
    assert output.features.shape == (2, net.out_features) == (2, 128 if options["wian"] else 64)
    output.logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("instances", [1, 2, 8, 16])
def test_any_bag_size(instances: int) -> None:
    assert make_net(instances=instances)(torch.randn(CLIP)).logits.shape == (2, 7)


@pytest.mark.filterwarnings("ignore")
def test_it_exports_with_any_batch_size() -> None:
    net = make_net().eval()
    exported = torch.export.export(net, (torch.randn(CLIP),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    clips = torch.randn(5, *CLIP[1:])
    torch.testing.assert_close(exported.module()(clips), net(clips), rtol=1e-4, atol=1e-5)


def test_clips_do_not_depend_on_their_batch_at_evaluation() -> None:
    net = make_net().eval()
    clips = torch.randn(CLIP)
    both = net(clips).logits
    torch.testing.assert_close(torch.cat([net(clip[None]).logits for clip in clips]), both, rtol=1e-4, atol=1e-5)


def test_instance_logits_add_up_to_the_clip() -> None:
    net = make_net().double().eval()
    clips = torch.randn(CLIP, dtype=torch.float64)
    per_instance = net.instance_logits(clips)
    assert per_instance.shape == (2, 4, 7)
    torch.testing.assert_close(per_instance.mean(1), net(clips).logits)


def test_bf16_is_near_float32_and_its_gradients_are_finite() -> None:
    net = make_net().eval()
    clips = torch.randn(CLIP)
    exact = net(clips).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(clips).logits
    assert (logits - exact).abs().max() < 0.05 * max(exact.std(), 0.1)
    logits.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_unknown_reading_is_refused() -> None:
    with pytest.raises(InputError, match="instance, channel"):
        make_net(weights="frames")


def test_net_learns_two_clips() -> None:
    net = make_net()
    clips, label = torch.randn(CLIP), torch.tensor([1, 5])
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(clips).logits, label)
        loss.backward()
        optimizer.step()
    assert loss < 0.3


class RandomClips(L.LightningDataModule):
    """Two batches of random clips, with the attributes that the models read from a data module."""

    seed, class_counts = 0, [50, 20, 10, 10, 5, 3, 2]

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(0)
        video = torch.randint(0, 256, (2, 4, 3, 16, 32, 32), generator=generator, dtype=torch.uint8)
        return DataLoader(
            [Batch(clips, torch.tensor([0, 0, 3, 6]), list("abcd"), {}) for clips in video], batch_size=None
        )


def make_model(**options: object) -> MICACL:
    torch.manual_seed(0)
    return MICACL(width=8, pretrained=False, warmup_epochs=0, lr=1e-3, **options)


def fit(model: L.LightningModule, epochs: int = 1, **trainer: object) -> L.Trainer:
    return fit_quietly(model, RandomClips(), max_epochs=epochs, **trainer)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mccl": False, "ial": 0.0},
        {"mccl": False, "ial": 0.0, "wian": False},
        {"mccl": False, "ial": 0.0, "wian": False, "geiim": False},
        {"form": "printed", "weights": "channel"},
        {"class_weighted": True, "logit_adjustment": 1.0},
    ],
    ids=str,
)
def test_recipe_trains_with_every_switch(options: dict[str, object]) -> None:
    model = make_model(**options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    logged = fit(model, epochs=2).callback_metrics
    assert all(p.isfinite().all() for p in model.parameters())
    # every parameter but convolution taps that only ever see padding gets a gradient, so AdamW moves it
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    terms = {name.removeprefix("train_") for name in logged}
    assert terms == {"loss", "ce"} | ({"ial"} if model.hparams.ial else set()) | (
        {"mccl", "consistency"} if options.get("mccl", True) else set()
    )


@pytest.mark.filterwarnings("ignore")
def test_loss_is_eq_13() -> None:
    model = make_model()
    logged = {name.removeprefix("train_"): value for name, value in fit(model).callback_metrics.items()}
    expected = logged["mccl"] + logged["ce"] + 0.1 * logged["ial"] + 0.1 * logged["consistency"]
    torch.testing.assert_close(logged["loss"], expected)


@pytest.mark.filterwarnings("ignore")
def test_consistency_compares_two_different_views() -> None:
    assert fit(make_model()).callback_metrics["train_consistency"] > 0


@pytest.mark.filterwarnings("ignore")
def test_recipe_trains_in_bf16() -> None:
    model = make_model()
    fit(model, precision="bf16-mixed")
    assert all(p.isfinite().all() for p in model.parameters())
