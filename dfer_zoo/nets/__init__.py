"""The papers' networks, plain torch: ``(B, 3, T, H, W)`` -> logits ``(B, K)`` and features ``(B, D)``."""

from dfer_zoo.nets.bag import NetOutput
from dfer_zoo.nets.baselines import BaselineNet
from dfer_zoo.nets.hdf import HDFNet
from dfer_zoo.nets.m3dfel import M3DFELNet
from dfer_zoo.nets.micacl import MICACLNet

__all__ = ["BaselineNet", "HDFNet", "M3DFELNet", "MICACLNet", "NetOutput"]
