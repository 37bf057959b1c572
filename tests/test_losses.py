"""Each loss against a loop over scalars written from its equation, its invariances, and batches that break losses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dfer_zoo import losses
from dfer_zoo.errors import InputError

COUNTS = (50, 20, 5, 1)
CLASSES = len(COUNTS)
COUNTS_TENSOR = torch.tensor(COUNTS, dtype=torch.float64)


@st.composite
def batches(draw, largest: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Features ``(B, 8)``, logits ``(B, 4)`` and labels of 1 to `largest` clips, in float64."""
    label = draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=largest))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    features = torch.randn(len(label), 8, generator=generator, dtype=torch.float64)
    logits = 3 * torch.randn(len(label), CLASSES, generator=generator, dtype=torch.float64)
    return features, logits, torch.tensor(label)


# Loops over Python floats, as the papers write the equations.


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def reference_weights(logits: list[list[float]], label: list[int]) -> list[float]:
    weights = [(1 - softmax(row)[y]) / COUNTS[y] for row, y in zip(logits, label, strict=True)]
    return [w * len(weights) / sum(weights) for w in weights]


def reference_category(z: list[list[float]], label: list[int], weights: list[float], tau: float, form: str) -> float:
    total = 0.0
    batch = range(len(label))
    for i in batch:
        positives = [j for j in batch if j != i and label[j] == label[i]]
        if form == "printed":
            below = sum(math.exp(cosine(z[i], z[k]) / tau) for k in batch)
            total += sum(weights[i] * math.exp(cosine(z[i], z[j]) / tau) for j in positives) / below
        elif positives:
            below = sum(math.exp(cosine(z[i], z[k]) / tau) for k in batch if k != i)
            ratios = [math.log(math.exp(cosine(z[i], z[j]) / tau) / below) for j in positives]
            total += weights[i] * sum(ratios) / len(ratios)
    return -total / len(label)


def reference_robust(z: list[list[float]], label: list[int], tau: float, eta: float, beta: float) -> float:
    batch = range(len(label))
    per_anchor = []
    for i in batch:
        positives = [j for j in batch if j != i and label[j] == label[i]]
        negatives = [j for j in batch if label[j] != label[i]]
        raw = {a: math.exp(-((cosine(z[i], z[a]) - eta) ** 2) / (2 * eta**2)) for a in negatives}
        weight = {a: w * len(raw) / sum(raw.values()) for a, w in raw.items()} | dict.fromkeys(positives, 1.0)
        below = sum(weight[a] * math.exp(cosine(z[i], z[a]) / tau) for a in batch if a != i)
        if positives:
            terms = [-math.log(math.exp(cosine(z[i], z[p]) / tau) / below) for p in positives]
            per_anchor.append(sum(terms) / len(terms))
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in z]
    center = [sum(row[d] for row in unit) / len(unit) for d in range(len(unit[0]))]
    trace = sum((x - c) ** 2 for row in unit for x, c in zip(row, center, strict=True)) / len(unit)
    return (sum(per_anchor) / len(per_anchor) if per_anchor else 0.0) + beta * trace


def test_cross_entropy_follows_its_definition() -> None:
    logits, label = torch.randn(5, CLASSES, dtype=torch.float64), torch.tensor([0, 1, 3, 3, 2])
    weights, prior = torch.tensor([1.0, 2.0, 0.5, 4.0]).double(), torch.tensor([0.5, -1.0, 0.0, -2.0]).double()
    expected = 0.0
    for row, y in zip(logits.tolist(), label.tolist(), strict=True):
        p = softmax([x + a for x, a in zip(row, prior.tolist(), strict=True)])
        smoothed = [0.1 / CLASSES + (0.9 if k == y else 0) for k in range(CLASSES)]
        expected += weights[y].item() * -sum(s * math.log(q) for s, q in zip(smoothed, p, strict=True)) / 5
    assert losses.cross_entropy(logits, label, 0.1, weights, prior).item() == pytest.approx(expected, abs=1e-12)


@given(batches())
@settings(deadline=None)
def test_intensity_aware_loss_follows_its_equation(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    _, logits, label = batch
    expected = 0.0
    for row, y in zip(logits.tolist(), label.tolist(), strict=True):
        hardest = max(x for k, x in enumerate(row) if k != y)
        expected -= math.log(math.exp(row[y]) / (math.exp(row[y]) + math.exp(hardest))) / len(label)
    assert losses.intensity_aware_loss(logits, label).item() == pytest.approx(expected, abs=1e-10)


def test_symmetric_kl_is_the_mean_of_both_directions() -> None:
    a, b = torch.randn(2, 3, CLASSES, dtype=torch.float64)
    expected = 0.0
    for p, q in ((softmax(x), softmax(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)):
        expected += sum(x * math.log(x / y) + y * math.log(y / x) for x, y in zip(p, q, strict=True)) / 2 / 3
    assert losses.symmetric_kl(a, b).item() == pytest.approx(expected, abs=1e-12)
    assert losses.symmetric_kl(a, a).item() == 0


def test_temperature_is_eq_10() -> None:
    expected = 0.07 * sum(1 + n / 50 for n in COUNTS) / 4
    assert losses.mccl_temperature(COUNTS_TENSOR).item() == pytest.approx(expected)


def test_temperature_of_a_balanced_set_is_twice_the_base() -> None:
    assert losses.mccl_temperature(torch.tensor([10.0, 10.0, 10.0])).item() == pytest.approx(0.14)


@given(batches())
@settings(deadline=None)
def test_category_weights_are_eq_7_with_mean_one(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    _, logits, label = batch
    weights = losses.category_weights(logits, label, COUNTS_TENSOR)
    assert weights.tolist() == pytest.approx(reference_weights(logits.tolist(), label.tolist()), rel=1e-9)


@pytest.mark.parametrize("form", ["log", "printed"])
@given(batch=batches())
@settings(max_examples=50, deadline=None)
def test_category_contrastive_is_eq_9_and_11(form: str, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    z, logits, label = batch
    weights = reference_weights(logits.tolist(), label.tolist())
    loss = losses.category_contrastive(z, label, torch.tensor(weights, dtype=torch.float64), 0.1, form)
    expected = reference_category(z.tolist(), label.tolist(), weights, 0.1, form)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("form", ["log", "printed"])
def test_mccl_averages_the_scales_of_eq_8_and_12(form: str) -> None:
    features, logits = torch.randn(6, 8, dtype=torch.float64), torch.randn(6, CLASSES, dtype=torch.float64)
    label = torch.tensor([0, 1, 0, 2, 1, 3])
    mccl = losses.MCCL(8, form=form, projection=5).double()
    weights = reference_weights(logits.tolist(), label.tolist())
    expected = 0.0
    for scale, projection in zip((1, 2, 4), mccl.projections, strict=True):
        matrix, bias = projection.weight.tolist(), projection.bias.tolist()
        z = []
        for row in features.tolist():
            pooled = [sum(row[d : d + scale]) / scale for d in range(0, 8, scale)]
            z.append(
                [
                    sum(m * x for m, x in zip(line, pooled, strict=True)) + b
                    for line, b in zip(matrix, bias, strict=True)
                ]
            )
        expected += reference_category(z, label.tolist(), weights, 0.07 * sum(1 + n / 50 for n in COUNTS) / 4, form) / 3
    assert mccl(features, logits, label, COUNTS_TENSOR).item() == pytest.approx(expected, rel=1e-9)


@given(batch=batches(), eta=st.floats(0.1, 1.0), tau=st.floats(0.05, 1.0))
@settings(max_examples=50, deadline=None)
def test_robust_contrastive_is_eq_13_to_15(batch: tuple[Tensor, Tensor, Tensor], eta: float, tau: float) -> None:
    z, _, label = batch
    loss = losses.robust_contrastive(z, label, tau, eta, bottleneck=0.3)
    assert loss.item() == pytest.approx(reference_robust(z.tolist(), label.tolist(), tau, eta, 0.3), rel=1e-8)


@given(st.floats(0, 1e6))
@settings(deadline=None)
def test_scaling_weights_are_eq_16(g: float) -> None:
    classification, contrastive = losses.scaling_weights(torch.tensor(g, dtype=torch.float64))
    assert classification.item() == pytest.approx(10 * g / (g + 1))
    assert contrastive.item() == pytest.approx(0.1 / (g + 1))


@given(batch=batches(), data=st.data())
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_batch_does_not_matter(batch: tuple[Tensor, Tensor, Tensor], data: st.DataObject) -> None:
    features, logits, label = batch
    order = torch.tensor(data.draw(st.permutations(range(len(label)))))
    weights = losses.category_weights(logits, label, COUNTS_TENSOR)
    torch.testing.assert_close(losses.category_weights(logits[order], label[order], COUNTS_TENSOR), weights[order])
    for form in ("log", "printed"):
        mccl = losses.MCCL(8, form=form, projection=4).double()
        torch.testing.assert_close(
            mccl(features[order], logits[order], label[order], COUNTS_TENSOR),
            mccl(features, logits, label, COUNTS_TENSOR),
        )
    torch.testing.assert_close(
        losses.robust_contrastive(features[order], label[order]), losses.robust_contrastive(features, label)
    )


def test_contrastive_losses_match_pytorch_metric_learning() -> None:
    supcon = pytest.importorskip("pytorch_metric_learning.losses").SupConLoss(temperature=0.1)
    z, label = torch.randn(8, 16), torch.tensor([0, 0, 1, 1, 2, 2, 2, 3])
    anchors_with_positives = 7
    expected = supcon(z, label)
    ours = losses.category_contrastive(z, label, torch.ones(8), 0.1) * 8 / anchors_with_positives
    torch.testing.assert_close(ours, expected)
    wide = losses.robust_contrastive(z, label, tau=0.1, eta=1e4, bottleneck=0)
    torch.testing.assert_close(wide, expected, rtol=1e-4, atol=1e-4)


def test_robust_contrastive_with_one_negative_is_supervised_contrastive() -> None:
    z, label = torch.randn(3, 8, dtype=torch.float64), torch.tensor([0, 0, 1])
    plain = losses.category_contrastive(z, label, torch.ones(3).double(), 0.07) * 3 / 2
    torch.testing.assert_close(losses.robust_contrastive(z, label, eta=1e3, bottleneck=0), plain)


def test_robust_contrastive_weights_hard_negatives_down() -> None:
    """A negative far beyond eta counts less than in the unweighted loss."""
    anchor, near, far = [1.0, 0.0], [0.95, 0.3], [0.2, 0.98]
    z = torch.tensor([anchor, [1.0, 0.1], near, far])
    label = torch.tensor([0, 0, 1, 2])
    weighted = losses.robust_contrastive(z, label, eta=0.2, bottleneck=0)
    assert weighted < losses.robust_contrastive(z, label, eta=1e3, bottleneck=0)


@pytest.mark.parametrize("form", ["log", "printed"])
def test_class_weights_of_mccl_get_no_gradient(form: str) -> None:
    logits = torch.randn(4, CLASSES, requires_grad=True)
    label = torch.tensor([0, 0, 1, 1])
    features = torch.randn(4, 8, requires_grad=True)
    losses.MCCL(8, form=form)(features, logits, label, COUNTS_TENSOR).backward()
    assert logits.grad is None
    assert features.grad.abs().sum() > 0


class AllLosses(nn.Module):
    """Every loss of the module on one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mccl = nn.ModuleList(losses.MCCL(8, form=form, projection=4) for form in ("log", "printed"))

    def forward(self, features: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        terms = [
            losses.cross_entropy(logits, label, 0.1, torch.ones(CLASSES), torch.zeros(CLASSES)),
            losses.intensity_aware_loss(logits, label),
            losses.symmetric_kl(logits, logits.flip(1)),
            losses.robust_contrastive(features, label),
            *(mccl(features, logits, label, COUNTS_TENSOR.float()) for mccl in self.mccl),
        ]
        assert {term.dtype for term in terms} == {torch.float32}
        return torch.stack(terms)


HARD_BATCHES = {
    "one clip": (torch.randn(1, 8), torch.randn(1, CLASSES), [2]),
    "one class": (torch.randn(4, 8), torch.randn(4, CLASSES), [1, 1, 1, 1]),
    "no two clips of one class": (torch.randn(4, 8), torch.randn(4, CLASSES), [0, 1, 2, 3]),
    "certain and right": (torch.randn(3, 8), 1e4 * torch.eye(CLASSES)[:3], [0, 1, 2]),
    "certain and wrong": (torch.randn(4, 8), -1e4 * torch.eye(CLASSES)[[0, 0, 1, 1]], [0, 0, 1, 1]),
    "identical features": (torch.ones(4, 8), torch.zeros(4, CLASSES), [0, 0, 1, 1]),
    "zero features": (torch.zeros(4, 8), torch.zeros(4, CLASSES), [0, 0, 1, 1]),
    "opposite features": (torch.tensor([[1.0], [-1.0]]).expand(2, 8) * 1e4, torch.zeros(2, CLASSES), [0, 0]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", HARD_BATCHES)
def test_hard_batches_are_finite(name: str, dtype: torch.dtype) -> None:
    features, logits, label = HARD_BATCHES[name]
    features, logits = (x.to(dtype, copy=True).requires_grad_() for x in (features, logits))
    every = AllLosses()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        terms = every(features, logits, torch.tensor(label))
    terms.sum().backward()
    gradients = [features.grad, logits.grad, *(p.grad for p in every.parameters())]
    assert terms.isfinite().all(), terms
    assert all(g.isfinite().all() for g in gradients)


def test_clips_without_positives_add_nothing() -> None:
    z, label = torch.randn(5, 8), torch.tensor([0, 0, 1, 2, 3])
    for i in (2, 3, 4):
        only = torch.zeros(5)
        only[i] = 1
        for form in ("log", "printed"):
            assert losses.category_contrastive(z, label, only, 0.07, form).item() == 0
    alone = torch.tensor([0, 1, 2, 3, 3])[:4]
    assert losses.robust_contrastive(z[:4], alone, bottleneck=0).item() == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"form": "exp"}, "log, printed"),
        ({"scales": (16,)}, "scales"),
        ({"scales": ()}, "scales"),
    ],
)
def test_mccl_refuses_what_it_cannot_use(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        losses.MCCL(8, **arguments)
