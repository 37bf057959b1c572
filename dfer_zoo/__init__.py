"""dfer-zoo: dynamic facial expression recognition, trained and compared under one protocol.

A trained model is three lines; `load` takes a checkpoint or its export to ONNX::

    import dfer_zoo
    model = dfer_zoo.load("runs/m3dfel-dfew/fold1-seed0/checkpoints/best_val.ckpt")
    logits = model(video).logits  # uint8 clips (B, 3, T, H, W); model.spec holds T, H = W and the labels

``dfer_zoo.recognize("party.mp4", model)`` finds a video's faces: a table, a row for each person and window of time.

The networks are plain torch:

>>> import torch
>>> from dfer_zoo.nets import HDFNet
>>> net = HDFNet(num_classes=7, frames=8, size=64, width_factor=0.5, depth_factor=0.5).eval()
>>> net(torch.zeros(1, 3, 8, 64, 64)).logits.shape
torch.Size([1, 7])
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfer_zoo.models import list_models, load
    from dfer_zoo.video.recognition import recognize

__all__ = ["__version__", "list_models", "load", "recognize"]
__version__ = version("dfer-zoo")

LAZY = {"list_models": "dfer_zoo.models", "load": "dfer_zoo.models", "recognize": "dfer_zoo.video.recognition"}
"""The Python API and where it is; importing that takes seconds, so it waits until a name is used."""


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
