"""X3D as a backbone: its size and the published file."""

import pytest
import torch

from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.nets.x3d import X3D


def test_published_x3d_s() -> None:
    net = X3D()
    assert net.channels == (24, 24, 48, 96, 192)
    assert [len(stage.res_blocks) for stage in net.blocks[1:]] == [3, 5, 11, 7]


def test_x3d_loads_pytorchvideos_file_without_the_head(tmp_path) -> None:
    trained = X3D()
    state = {**trained.state_dict(), "blocks.5.proj.weight": torch.zeros(400, 2048)}
    torch.save({"model_state": state}, tmp_path / "X3D_S.pyth")
    loaded = X3D(str(tmp_path / "X3D_S.pyth"))
    assert all(
        torch.equal(a, b) for a, b in zip(trained.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_x3d_refuses_weights_that_do_not_fit(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        X3D("nowhere.pyth")
    torch.save({"model_state": {"blocks.0.conv.weight": torch.zeros(1)}}, tmp_path / "other.pyth")
    with pytest.raises(CheckpointError, match="X3D-S"):
        X3D(str(tmp_path / "other.pyth"))
    with pytest.raises(InputError, match="pretrained: false"):
        X3D("any.pyth", width_factor=1.0)


def test_x3d_offline_says_what_to_do(monkeypatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("dfer_zoo.nets.x3d.load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match="pretrained: false"):
        X3D(True)
