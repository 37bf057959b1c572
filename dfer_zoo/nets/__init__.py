"""The papers' networks, plain torch: ``(B, 3, T, H, W)`` -> logits ``(B, K)`` and features ``(B, D)``."""

from dfer_zoo.nets.bag import NetOutput
from dfer_zoo.nets.m3dfel import M3DFELNet

__all__ = ["M3DFELNet", "NetOutput"]
