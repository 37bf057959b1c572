"""From the ``class_path`` of a yaml file to the class."""

from importlib import import_module
from typing import TypeVar

from dfer_zoo.errors import InputError

Kind = TypeVar("Kind")


def class_named(class_path: str, kind: type[Kind]) -> type[Kind]:
    """Return the class that a yaml file names: of this package, or of any other module that Python finds.

    Args:
        class_path: module and class, such as ``dfer_zoo.data.DFEW``.
        kind: what it must be a subclass of.

    Raises:
        InputError: no such module, no such class, or one of another kind.
    """
    try:
        module, _, name = class_path.rpartition(".")
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"class_path is {class_path!r}, which cannot be imported ({error}). Write module and class, such as "
            "dfer_zoo.data.DFEW; a module of your own is found in the folders of PYTHONPATH."
        ) from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise InputError(f"class_path is {class_path!r}, which is no {kind.__name__}.")
    return found
