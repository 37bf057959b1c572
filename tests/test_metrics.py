"""WAR and UAR against scikit-learn."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torch import Tensor

from dfer_zoo.metrics import UAR, WAR, confusion_matrix, recalls, uar, war

CLASSES = 7


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Labels and predicted ids; often some class is absent from one or both."""
    ids = st.integers(0, CLASSES - 1)
    pairs = draw(st.lists(st.tuples(ids, ids), min_size=1, max_size=40))
    label, predicted = torch.tensor(pairs).unbind(1)
    return label, predicted


def balanced_accuracy(label: Tensor, predicted: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about predicted classes that have no clips
        return balanced_accuracy_score(label, predicted)


@given(predictions())
def test_war_and_uar_are_accuracy_and_balanced_accuracy(pair: tuple[Tensor, Tensor]) -> None:
    label, predicted = pair
    confusion = confusion_matrix(label, predicted, CLASSES)
    assert war(confusion).item() == pytest.approx(accuracy_score(label, predicted))
    assert uar(confusion).item() == pytest.approx(balanced_accuracy(label, predicted))


@given(predictions())
def test_confusion_matrix_has_true_classes_in_rows(pair: tuple[Tensor, Tensor]) -> None:
    expected = sklearn_confusion_matrix(*pair, labels=range(CLASSES))
    assert confusion_matrix(*pair, CLASSES).tolist() == expected.tolist()


@given(predictions(), st.integers(1, 5))
def test_metrics_add_up_batches(pair: tuple[Tensor, Tensor], batch_size: int) -> None:
    label, predicted = pair
    metrics = WAR(CLASSES), UAR(CLASSES)
    for metric in metrics:
        for start in range(0, len(label), batch_size):
            part = slice(start, start + batch_size)
            metric.update(torch.nn.functional.one_hot(predicted[part], CLASSES).float(), label[part])
    assert metrics[0].compute().item() == pytest.approx(accuracy_score(label, predicted))
    assert metrics[1].compute().item() == pytest.approx(balanced_accuracy(label, predicted))


def test_metrics_start_anew_after_reset() -> None:
    metric = WAR(CLASSES)
    right, wrong = torch.eye(CLASSES), torch.eye(CLASSES).roll(1, 0)
    metric.update(wrong, torch.arange(CLASSES))
    metric.reset()
    metric.update(right, torch.arange(CLASSES))
    assert metric.compute() == 1


def test_a_class_without_clips_has_no_recall_and_does_not_lower_uar() -> None:
    confusion = torch.tensor([[8, 0, 2], [0, 0, 0], [5, 0, 5]])
    assert recalls(confusion).isnan().tolist() == [False, True, False]
    assert uar(confusion).item() == pytest.approx((0.8 + 0.5) / 2)
    assert war(confusion).item() == pytest.approx(13 / 20)


def test_metrics_are_exact_where_float32_counts_are_not() -> None:
    many = 2**24 + 1
    confusion = torch.tensor([[many, 0], [0, many]])
    assert war(confusion) == 1
    assert uar(confusion) == 1
