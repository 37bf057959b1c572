"""dfer-zoo: dynamic facial expression recognition, trained and compared under one protocol."""

from importlib.metadata import version

__version__ = version("dfer-zoo")
