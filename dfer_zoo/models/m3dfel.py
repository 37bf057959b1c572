"""M3DFEL (CVPR 2023): the recipe; the network is `dfer_zoo.nets.m3dfel`, the card `experiments/model/m3dfel.md`."""

from typing import Literal

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.models.base import DFERModel
from dfer_zoo.nets import M3DFELNet


class M3DFEL(DFERModel):
    """M3DFEL with cross entropy (Section 3.2); ``ial: 0.1`` makes it M3DFEL+IAL.

    Args:
        instances: N, the bag size (Table 3).
        frames: T; must be the data's.
        lstm: False leaves the BiLSTM out (Table 4, b).
        dmin: False leaves DMIN out (Table 4, c).
        mhsa: False leaves self-attention out (Table 4, d).
        aggregation: ``dliam``, or ``average`` for the baseline (Table 4, a).
        width: channels of the backbone's stem; 64 is the published network.
        pretrained: true for torchvision's Kinetics-400 weights, a path for a local file, false for random weights.
        **kwargs: the recipe, see `DFERModel`.
    """

    def __init__(
        self,
        instances: int = 4,
        frames: int = 16,
        lstm: bool = True,
        dmin: bool = True,
        mhsa: bool = True,
        aggregation: Literal["dliam", "average"] = "dliam",
        width: int = 64,
        pretrained: bool | str = True,
        **kwargs,
    ) -> None:
        net = M3DFELNet(len(EMOTIONS), instances, frames, lstm, dmin, mhsa, aggregation, width, pretrained)
        super().__init__(net, **kwargs)
