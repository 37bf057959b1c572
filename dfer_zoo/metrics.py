"""WAR and UAR, the two figures of every table in the field, read off one confusion matrix.

Confusion matrices are ``(K, K)``: rows are the true classes, columns the predicted ones.
"""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


def recalls(confusion: Tensor) -> Tensor:
    """Return the recall of each class ``(K,)``, in 0..1; NaN for a class without clips.

    >>> recalls(torch.tensor([[3, 1], [0, 0]]))
    tensor([0.7500,    nan])
    """
    return confusion.diagonal().double().div(confusion.sum(1)).float()


def war(confusion: Tensor) -> Tensor:
    """Return the weighted average recall, which is the accuracy over all clips; a scalar in 0..1."""
    return confusion.trace().double().div(confusion.sum()).float()


def uar(confusion: Tensor) -> Tensor:
    """Return the unweighted average recall over the classes that have clips; a scalar in 0..1.

    This is scikit-learn's balanced accuracy. A macro recall that counts a class which is predicted but absent as 0 is
    lower.
    """
    return recalls(confusion).nanmean()


class WAR(MulticlassConfusionMatrix):
    """Weighted average recall as a torchmetrics metric: update with logits ``(B, K)`` and labels ``(B,)``."""

    full_state_update = False
    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the scalar over all clips seen on all devices."""
        return war(self.confmat)


class UAR(MulticlassConfusionMatrix):
    """Unweighted average recall as a torchmetrics metric: update with logits ``(B, K)`` and labels ``(B,)``."""

    full_state_update = False
    higher_is_better = True

    def compute(self) -> Tensor:
        """Return the scalar over all clips seen on all devices."""
        return uar(self.confmat)


def confusion_matrix(label: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Count ``(K, K)`` from label and predicted ids ``(n,)``.

    >>> confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    return torch.bincount(label * num_classes + predicted, minlength=num_classes**2).unflatten(0, (num_classes, -1))
