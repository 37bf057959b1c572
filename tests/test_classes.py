"""Classes by the name that a yaml file gives them."""

import pytest

from dfer_zoo.classes import class_named
from dfer_zoo.data import DFEW, DFERData
from dfer_zoo.errors import InputError


def test_a_class_is_found_by_module_and_name() -> None:
    assert class_named("dfer_zoo.data.DFEW", DFERData) is DFEW
    assert class_named("dfer_zoo.data.dfew.DFEW", DFERData) is DFEW


@pytest.mark.parametrize(
    ("class_path", "reason"),
    [
        ("nowhere.DFEW", "No module named 'nowhere'"),
        ("dfer_zoo.data.Nothing", "has no attribute 'Nothing'"),
        ("DFEW", "Write module and class"),
        ("dfer_zoo.models.HDF", "is no DFERData"),
        ("dfer_zoo.data.dfew.COUNTS", "cannot be imported"),
        ("os.getcwd", "is no DFERData"),
        (3, "cannot be imported"),
    ],
)
def test_anything_else_is_refused_with_its_name(class_path: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        class_named(class_path, DFERData)
    assert repr(class_path) in str(error.value)
