"""dfer-zoo: dynamic facial expression recognition, trained and compared under one protocol."""

from importlib import import_module
from importlib.metadata import version

__version__ = version("dfer-zoo")

LAZY = {"load": "dfer_zoo.models", "recognize": "dfer_zoo.video.recognition"}
"""Names that can be imported from here, by the module that defines them; none is loaded before it is used."""


def __getattr__(name: str) -> object:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'dfer_zoo' has no attribute {name!r}")
