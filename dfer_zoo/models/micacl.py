"""MICACL (ISPA 2025): the recipe; the network is `dfer_zoo.nets.micacl`, the card `experiments/model/micacl.md`."""

import torch.nn.functional as F
from torch import Tensor

from dfer_zoo.data.base import Batch
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.losses import MCCL, ContrastiveForm, symmetric_kl
from dfer_zoo.models.base import DFERModel
from dfer_zoo.nets.micacl import InstanceWeights, MICACLNet

CONSISTENCY = 0.1
"""Weight in CET of the divergence between two dropout views; CET's appendix is not public, so this is our choice."""

VIEW_DROPOUT = 0.3
"""Probability of dropping a value of the bag feature in each view; our choice as well."""


class MICACL(DFERModel):
    """MICACL with its contrastive loss MCCL and the classification enhancement term CET (Eq. 13).

    CET is in an appendix that is not public; the text says it "integrates feature augmentation regularization and
    intensity-aware loss". Here: cross entropy, 0.1 times the intensity-aware loss, and 0.1 times the symmetric
    Kullback-Leibler divergence between the predictions of two dropout views of the bag feature.

    Args:
        instances: N, the bag size.
        frames: T; must be the data's.
        geiim: False leaves GEIIM out (Table III).
        wian: False leaves WIAN out (Table III).
        mccl: False leaves the contrastive loss and the two views out (Table III); with ``ial: 0`` what remains is the
            cross entropy of its rows a to c.
        multiscale: False leaves the multiscale convolutions out of GEIIM.
        weights: reading of Eq. 4, see `dfer_zoo.nets.micacl.WIAN`.
        form: reading of Eq. 11, see `dfer_zoo.losses.category_contrastive`.
        width: channels of the backbone's stem; 64 is the published network.
        pretrained: true for torchvision's Kinetics-400 weights, a path for a local file, false for random weights.
        ial: weight of the intensity-aware loss, here a part of CET.
        **kwargs: the recipe, see `DFERModel`.
    """

    def __init__(
        self,
        instances: int = 4,
        frames: int = 16,
        geiim: bool = True,
        wian: bool = True,
        mccl: bool = True,
        multiscale: bool = True,
        weights: InstanceWeights = "instance",
        form: ContrastiveForm = "log",
        width: int = 64,
        pretrained: bool | str = True,
        ial: float = 0.1,
        **kwargs,
    ) -> None:
        net = MICACLNet(len(EMOTIONS), instances, frames, geiim, wian, multiscale, weights, width, pretrained)
        super().__init__(net, ial=ial, **kwargs)
        self.mccl = MCCL(net.out_features, form=form) if mccl else None

    @property
    def compares_clips(self) -> bool:
        """With MCCL."""
        return self.mccl is not None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``ce``, ``ial``, ``consistency``, ``mccl`` and their weighted sum ``loss`` (Eq. 13)."""
        output = self(batch.video)
        terms = self.classification_losses(output.logits, batch.label)
        if self.mccl is None:
            return terms
        views = [self.net.fc(F.dropout(output.features, VIEW_DROPOUT)) for _ in range(2)]
        terms["consistency"] = symmetric_kl(*views)
        gathered = (self.gather(tensor) for tensor in (output.features, output.logits, batch.label))
        terms["mccl"] = self.mccl(*gathered, self.class_counts)
        terms["loss"] = terms["loss"] + CONSISTENCY * terms["consistency"] + terms["mccl"]
        return terms
