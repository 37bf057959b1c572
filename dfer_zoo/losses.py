"""Losses of the three papers, each with the equation it implements.

Every loss takes logits or features of any floating type and computes in float32 (float64 stays float64), outside
autocast. The contrastive ones look at all clips of a batch: under data parallelism give them the features and labels
gathered from all devices. What a loss divides by is guarded, so a batch of one clip, of one class, or without two clips
of a class is finite, and so are its gradients.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfer_zoo.errors import InputError

ContrastiveForm = Literal["log", "printed"]


def _full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Run `loss` outside autocast with its half-precision arguments as float32."""

    def widen(argument: object) -> object:
        half = isinstance(argument, Tensor) and argument.dtype in (torch.bfloat16, torch.float16)
        return argument.float() if half else argument

    @functools.wraps(loss)
    def wrapper(first: Tensor, *args: object, **kwargs: object) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            return loss(widen(first), *map(widen, args), **{name: widen(value) for name, value in kwargs.items()})

    return wrapper


@_full_precision
def cross_entropy(
    logits: Tensor,
    label: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    logit_adjustment: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy, with the usual remedies for long-tailed training sets.

    The mean is over clips, not over weights as in `torch.nn.functional.cross_entropy`: the loss of a batch is then the
    mean of its parts' losses, on any number of devices.

    Args:
        logits: ``(B, K)``.
        label: ``(B,)``, class ids.
        label_smoothing: probability mass spread evenly over all classes, in [0, 1).
        class_weights: ``(K,)``, the factor of a clip's loss, by its class.
        logit_adjustment: ``(K,)``, ``tau * log(prior)``, added to the logits (Menon et al., ICLR 2021, Eq. 10). Pass it
            in training only.

    Returns:
        A scalar.
    """
    if logit_adjustment is not None:
        logits = logits + logit_adjustment
    loss = F.cross_entropy(logits, label, label_smoothing=label_smoothing, reduction="none")
    if class_weights is not None:
        loss = loss * class_weights[label]
    return loss.mean()


@_full_precision
def intensity_aware_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Intensity-aware loss (Li et al., AAAI 2023): ``-log(e^x_t / (e^x_t + e^x_max))``.

    ``x_t`` is the target's logit and ``x_max`` the largest of the others, so this is ``softplus(x_max - x_t)``.

    Args:
        logits: ``(B, K)``, K at least 2.
        label: ``(B,)``, class ids.

    Returns:
        A scalar, the mean over the batch.
    """
    target = logits.gather(1, label[:, None]).squeeze(1)
    hardest = logits.scatter(1, label[:, None], -torch.inf).amax(1)
    return F.softplus(hardest - target).mean()


@_full_precision
def symmetric_kl(logits: Tensor, other: Tensor) -> Tensor:
    """Mean of the two Kullback-Leibler divergences between two predictions of the same clips.

    Args:
        logits: ``(B, K)``.
        other: ``(B, K)``.

    Returns:
        A scalar, the mean over the batch.
    """
    p, q = logits.log_softmax(1), other.log_softmax(1)
    # KL(p || q) + KL(q || p) = sum (p - q) (log p - log q)
    return ((p.exp() - q.exp()) * (p - q)).sum(1).mean() / 2


def _pairs(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks ``(B, B)`` of the positives and the negatives of each anchor (row), and of the anchors themselves."""
    itself = torch.eye(len(label), dtype=torch.bool, device=label.device)
    same = label[:, None] == label[None, :]
    return same & ~itself, ~same, itself


def _log_ratio_over_positives(similarity: Tensor, positive: Tensor, denominator: Tensor) -> Tensor:
    """``(B,)``: mean over each anchor's positives p of ``s_ip - log sum_a e^{denominator_ia}``; 0 without positives."""
    log_ratio = similarity - denominator.logsumexp(1, keepdim=True)
    return log_ratio.masked_fill(~positive, 0).sum(1) / positive.sum(1).clamp_min(1)


def mccl_temperature(class_counts: Tensor, tau0: float = 0.07) -> Tensor:
    """Temperature of MICACL, Eq. 10: ``tau0 * mean_c(1 + n_c / max n)``.

    Args:
        class_counts: ``(K,)``, clips of each class in the training split.
        tau0: base temperature; the paper prints none, 0.07 is supervised contrastive learning's.

    Returns:
        A scalar.

    Example:
        >>> mccl_temperature(torch.tensor([10, 5, 5, 0]), tau0=1.0)
        tensor(1.5000)
    """
    return tau0 * (1 + class_counts / class_counts.max()).mean()


@_full_precision
def category_weights(logits: Tensor, label: Tensor, class_counts: Tensor) -> Tensor:
    """Category-aware weights of MICACL, Eq. 7: ``(1 - softmax(logits)_y) / n_y``, detached, scaled to mean 1.

    As printed the weights are of the order of one over the number of clips and the loss vanishes beside the
    cross entropy; their mean over the batch is therefore 1 (0 if every clip is predicted with certainty).

    Args:
        logits: ``(B, K)``.
        label: ``(B,)``, class ids.
        class_counts: ``(K,)``, clips of each class in the training split.

    Returns:
        ``(B,)``, not negative.
    """
    log_probability = logits.detach().log_softmax(1).gather(1, label[:, None]).squeeze(1)
    weights = -log_probability.expm1() / class_counts[label].clamp_min(1)
    return weights / weights.mean().clamp_min(torch.finfo(weights.dtype).tiny)


@_full_precision
def category_contrastive(
    features: Tensor, label: Tensor, weights: Tensor, tau: float | Tensor, form: ContrastiveForm = "log"
) -> Tensor:
    """Category-aware contrastive loss of MICACL at one scale, Eq. 9 and 11.

    Args:
        features: ``(B, D)``, any length: the similarity is the cosine over `tau`.
        label: ``(B,)``, class ids.
        weights: ``(B,)``, Eq. 7.
        tau: temperature, Eq. 10.
        form: "printed" is Eq. 11 to the letter: no logarithm, and the clip itself in the denominator, which it
            dominates. "log" is the weighted supervised contrastive loss: the clip itself left out, the mean over
            positives outside the logarithm.

    Returns:
        A scalar: the sum over clips by the batch size; a clip without positives adds nothing.
    """
    normalised = F.normalize(features, dim=1)
    similarity = normalised @ normalised.T / tau
    positive, _, itself = _pairs(label)
    if form == "printed":
        per_clip = similarity.softmax(1).masked_fill(~positive, 0).sum(1)
    else:
        # The most negative number instead of -inf: a row of nothing but -inf has a NaN gradient.
        others = similarity.masked_fill(itself, torch.finfo(similarity.dtype).min)
        per_clip = _log_ratio_over_positives(similarity, positive, others)
    return -(weights * per_clip).mean()


class MCCL(nn.Module):
    """Multiscale category-aware contrastive loss of MICACL, Eq. 7-12.

    At scale s the feature vector is pooled to D / s values and projected (Eq. 8); the losses of the scales (Eq. 11) are
    averaged (Eq. 12).

    Args:
        features: D, size of the bag feature.
        scales: factors by which the feature vector is pooled. The paper prints none.
        projection: size of each scale's projection. The paper prints none.
        tau0: base temperature of Eq. 10. The paper prints none.
        form: of Eq. 11, see `category_contrastive`.

    Raises:
        InputError: an unknown form, a scale that is not between 1 and D.
    """

    def __init__(
        self,
        features: int,
        scales: Sequence[int] = (1, 2, 4),
        projection: int = 128,
        tau0: float = 0.07,
        form: ContrastiveForm = "log",
    ):
        super().__init__()
        if form not in get_args(ContrastiveForm):
            raise InputError(f"form is {form!r}; allowed: {', '.join(get_args(ContrastiveForm))}.")
        if not scales or not 1 <= min(scales) <= max(scales) <= features:
            raise InputError(f"scales is {list(scales)}; each must be between 1 and the feature size, {features}.")
        self.tau0, self.form = tau0, form
        self.projections = nn.ModuleList(nn.Linear(features // scale, projection) for scale in scales)

    def forward(self, features: Tensor, logits: Tensor, label: Tensor, class_counts: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            features: ``(B, D)``, the bag features.
            logits: ``(B, K)``, their predictions; they only weight the clips and get no gradient.
            label: ``(B,)``, class ids.
            class_counts: ``(K,)``, clips of each class in the training split; they set Eq. 7 and Eq. 10.
        """
        weights = category_weights(logits, label, class_counts)
        tau = mccl_temperature(class_counts, self.tau0)
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.projections[0].weight.dtype)
            scaled = [project(F.adaptive_avg_pool1d(features, project.in_features)) for project in self.projections]
            losses = [category_contrastive(z, label, weights, tau, self.form) for z in scaled]
        return torch.stack(losses).mean()


@_full_precision
def robust_contrastive(
    features: Tensor, label: Tensor, tau: float = 0.07, eta: float = 0.2, bottleneck: float = 0.1
) -> Tensor:
    """Information-constrained distributionally robust contrastive loss of HDF, Eq. 13-15.

    Negatives are weighted by ``w = exp(-(s - eta)^2 / (2 eta^2))``. Departures from Eq. 13: `s` in the weight is the
    cosine before the temperature (over tau nearly every weight underflows), positives have weight 1 (weighted, the loss
    has no lower bound), and the weights are detached and scaled to mean 1 over each anchor's negatives.

    Args:
        features: ``(B, D)``, any length; they are normalised here.
        label: ``(B,)``, class ids.
        tau: temperature (section 5.1.3).
        eta: centre and width of the weighting curve (section 5.1.3).
        bottleneck: beta of Eq. 15, the factor of the trace of the normalised features' covariance. The paper prints
            none.

    Returns:
        A scalar: the mean over the clips that have a positive, plus the bottleneck term.
    """
    z = F.normalize(features, dim=1)
    cosine = z @ z.T
    positive, negative, itself = _pairs(label)
    least = torch.finfo(z.dtype).min
    with torch.no_grad():
        log_weights = (-((cosine - eta) ** 2) / (2 * eta**2)).masked_fill(~negative, least)
        log_mean = log_weights.logsumexp(1, keepdim=True) - negative.sum(1, keepdim=True).clamp_min(1).to(z.dtype).log()
        log_weights = (log_weights - log_mean).masked_fill(~negative, 0)
    similarity = cosine / tau
    candidates = (similarity + log_weights).masked_fill(itself, least)
    per_clip = _log_ratio_over_positives(similarity, positive, candidates)
    contrastive = -per_clip.sum() / positive.any(1).sum().clamp_min(1)
    trace = (z - z.mean(0)).square().sum(1).mean()  # of Eq. 14, without forming the D x D matrix
    return contrastive + bottleneck * trace


def scaling_weights(
    gradient_norm: Tensor, classification: float = 10.0, contrastive: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Weights of the classification and the contrastive loss in HDF, Eq. 16: ``a g / (g + 1)`` and ``b / (g + 1)``.

    Args:
        gradient_norm: g, a scalar, the norm of the gradient of the unweighted sum of the two losses.
        classification: a, the limit of the first weight for large g. The paper prints none; 10 is the released code's
            constant weight.
        contrastive: b, the limit of the second weight for small g. The paper prints none; 0.1 likewise.

    Returns:
        Two scalars without gradient.
    """
    gradient_norm = gradient_norm.detach()
    return classification * gradient_norm / (gradient_norm + 1), contrastive / (gradient_norm + 1)
