"""The Python API: what its documentation shows works, and importing it costs nothing."""

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import write_checkpoint
from torch import nn

import dfer_zoo
from dfer_zoo import models, nets
from dfer_zoo.models import Baseline

RECIPES = Path(__file__).parent.parent / "experiments" / "model"


def test_the_documented_lines_classify_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the indented lines of the package's documentation where such a run exists."""
    checkpoint = tmp_path / "runs" / "m3dfel-dfew" / "fold1-seed0" / "checkpoints" / "best_val.ckpt"
    write_checkpoint(checkpoint, Baseline("r3d_18", frames=4, width=4, pretrained=False))
    monkeypatch.chdir(tmp_path)
    names = {"video": torch.zeros(2, 3, 4, 32, 32, dtype=torch.uint8)}
    example = dfer_zoo.__doc__.partition("::\n\n")[2].partition("\n\n")[0]
    exec(textwrap.dedent(example), names)
    assert names["logits"].shape == (2, 7)
    assert (names["model"].spec["frames"], names["model"].spec["size"]) == (4, 32)


def test_every_name_is_there() -> None:
    assert dfer_zoo.load is models.load
    for name in dfer_zoo.__all__:
        assert getattr(dfer_zoo, name)
        assert name in dir(dfer_zoo)
    assert set(dfer_zoo.LAZY) < set(dfer_zoo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        dfer_zoo.lod  # noqa: B018


def test_models_listed_are_those_with_a_recipe() -> None:
    assert set(dfer_zoo.list_models()) == {path.stem for path in RECIPES.glob("*.yaml")}


def test_every_net_is_exported() -> None:
    """The nets of the recipes, whatever they are, can be had from `dfer_zoo.nets`."""
    used = {
        value
        for module in vars(models).values()
        if inspect.ismodule(module)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and name.endswith("Net")
    }
    assert len(used) >= 4
    assert used <= {getattr(nets, name) for name in nets.__all__}


def test_importing_the_package_imports_neither_torch_nor_lightning() -> None:
    program = (
        "import sys, dfer_zoo; dfer_zoo.__version__, dir(dfer_zoo);"
        "print(sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert output.stdout.strip() == "[]"
