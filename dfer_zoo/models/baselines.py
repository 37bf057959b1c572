"""The baselines of the papers' tables: a backbone trained with cross entropy; card `experiments/model/baselines.md`."""

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.models.base import DFERModel
from dfer_zoo.nets.baselines import Backbone, BaselineNet


class Baseline(DFERModel):
    """A video backbone with a linear classifier and cross entropy.

    Args:
        backbone: ``r3d_18``, ``mc3_18``, ``r2plus1d_18``, ``x3d_s`` or ``resnet18_lstm``.
        frames: T; must be the data's.
        width: channels of the stem; 64 is the published network.
        dropout: probability of dropping a feature before the classifier.
        pretrained: true for published weights, a path for a local file, false for random weights.
        **kwargs: the recipe, see `DFERModel`.
    """

    def __init__(
        self,
        backbone: Backbone = "r3d_18",
        frames: int = 16,
        width: int = 64,
        dropout: float = 0.0,
        pretrained: bool | str = True,
        **kwargs,
    ) -> None:
        super().__init__(BaselineNet(backbone, len(EMOTIONS), frames, width, dropout, pretrained), **kwargs)
