"""HDF (ACM MM 2025): the recipe; the network is `dfer_zoo.nets.hdf`, the card `experiments/model/hdf.md`."""

import torch
from torch import Tensor

from dfer_zoo.data.base import Batch
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.losses import robust_contrastive, scaling_weights
from dfer_zoo.models.base import DFERModel
from dfer_zoo.nets.hdf import HDFNet
from dfer_zoo.nets.x3d import FULL_DEPTH_FACTOR, FULL_WIDTH_FACTOR
from dfer_zoo.optim import SAM


class HDF(DFERModel):
    """HDF with its distribution-aware scaling module DSM (Section 4.2).

    A step of DSM has two passes. The first is on the unweighted sum of the classification and the contrastive loss;
    the norm of its gradient is g of Eq. 16 and its direction the one that SAM climbs. The second is on the sum weighted
    by Eq. 16-17. Read literally, g is the gradient norm of the weighted sum, which needs g itself.

    Args:
        frames: T; must be the data's.
        size: side of the frames, in pixels; only the default place of DAM depends on it.
        dam: False leaves DAM out (Table 3).
        frequency: False leaves DAM's frequency branch out (Table 4).
        temporal: False leaves DAM's temporal branch out (Table 4).
        dsm: False trains with AdamW and the classification loss alone (Table 3).
        rho: radius of SAM's climb, 0.05 in the paper of SAM. 0 takes a single pass, in which g is the norm of the
            gradient with respect to the feature and the classifier alone: cheaper, and a departure.
        dam_stage: stage of X3D, 1 to 4, that DAM follows; None is the last one that fits its window.
        width: 64 is the published network; other values scale X3D's channels by ``width / 64``.
        depth_factor: of X3D; 2.2 is the published one.
        dropout: probability of dropping a value of the feature before the classifier; X3D's 0.5.
        pretrained: true for pytorchvideo's Kinetics-400 weights, a path for a local file, false for random weights.
        **kwargs: the recipe, see `DFERModel`.

    Raises:
        InputError: options that exclude each other.
    """

    def __init__(
        self,
        frames: int = 16,
        size: int = 160,
        dam: bool = True,
        frequency: bool = True,
        temporal: bool = True,
        dsm: bool = True,
        rho: float = 0.05,
        dam_stage: int | None = None,
        width: int = 64,
        depth_factor: float = FULL_DEPTH_FACTOR,
        dropout: float = 0.5,
        pretrained: bool | str = True,
        **kwargs,
    ) -> None:
        net = HDFNet(
            num_classes=len(EMOTIONS),
            frames=frames,
            size=size,
            dam=dam,
            frequency=frequency,
            temporal=temporal,
            dam_stage=dam_stage,
            dropout=dropout,
            width_factor=FULL_WIDTH_FACTOR * width / 64,
            depth_factor=depth_factor,
            pretrained=pretrained,
        )
        super().__init__(net, **kwargs)
        if self.hparams.compile and dsm and not self.two_passes:
            raise InputError(
                f"rho is {rho}: the step needs gradients at the feature within the net, which a compiled net hides. "
                "Set model.compile: false, model.dsm: false or a rho above 0."
            )

    @property
    def two_passes(self) -> bool:
        """Whether a step has SAM's two passes."""
        return self.hparams.dsm and self.hparams.rho > 0

    @property
    def compares_clips(self) -> bool:
        """With DSM."""
        return self.hparams.dsm

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``ce``, ``contrastive``, ``loss`` (Eq. 17) and, in the weighted pass, ``gradient_norm``."""
        output = self(batch.video)
        terms = self.classification_losses(output.logits, batch.label)
        if not self.hparams.dsm:
            return terms
        classification = terms["loss"]
        contrastive = robust_contrastive(self.gather(output.features), self.gather(batch.label))
        terms |= {"contrastive": contrastive, "loss": classification + contrastive}
        if self.two_passes:
            sam = self.optimizers(use_pl_optimizer=False)
            if not sam.in_second_pass:
                return terms
            gradient_norm = sam.grad_norm
        else:
            gradient_norm = self.head_gradient_norm(terms["loss"], output.features)
        classification_weight, contrastive_weight = scaling_weights(gradient_norm)
        terms["loss"] = classification_weight * classification + contrastive_weight * contrastive
        terms["gradient_norm"] = gradient_norm
        return terms

    def head_gradient_norm(self, loss: Tensor, features: Tensor) -> Tensor:
        """Return the norm of the gradient with respect to the features of the global batch and the classifier.

        Args:
            loss: a scalar, this device's.
            features: ``(B, D)``, of this device's clips.
        """
        of_features, *of_classifier = torch.autograd.grad(
            loss, [features, *self.net.fc.parameters()], retain_graph=True
        )
        # the loss is the mean of the devices' losses
        of_features = self.gather(of_features) * len(of_features) / len(self.gather(of_features))
        gradients = [of_features, *(self.gather(gradient[None]).mean(0) for gradient in of_classifier)]
        return torch.nn.utils.get_total_norm(gradients).detach()

    def optimizer(self) -> torch.optim.Optimizer:
        """Return SAM around AdamW, or AdamW without DSM.

        Raises:
            InputError: gradient accumulation, which would climb along a part of the gradient.
        """
        if not self.two_passes:
            return super().optimizer()
        if self.trainer.accumulate_grad_batches != 1:
            raise InputError(
                f"accumulate_grad_batches is {self.trainer.accumulate_grad_batches}; SAM needs both of its passes on "
                "one whole batch. Set it to 1, or set rho: 0."
            )
        hp = self.hparams
        return SAM(self.parameters(), rho=hp.rho, net=self.net, lr=hp.lr, weight_decay=hp.weight_decay, fused=True)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *args, **kwargs) -> None:
        """Clip the gradient of the step, not that of the climb, whose norm is g."""
        if not self.two_passes or self.optimizers(use_pl_optimizer=False).in_second_pass:
            super().configure_gradient_clipping(optimizer, *args, **kwargs)
