"""The datasets: what ``data:`` in yaml and ``DATA=`` may name."""

from dfer_zoo.data.base import Batch, DFERData
from dfer_zoo.data.clips import Clips
from dfer_zoo.data.dfew import DFEW
from dfer_zoo.data.ferv39k import FERV39k

__all__ = ["DFEW", "Batch", "Clips", "DFERData", "FERV39k"]
