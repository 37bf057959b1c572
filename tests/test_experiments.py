"""The yaml files say what the papers say."""

from pathlib import Path

import pytest
import yaml

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def recipe(model: str) -> dict:
    content = yaml.safe_load((EXPERIMENTS / "model" / f"{model}.yaml").read_text())
    return {**content["model"]["init_args"], **content["trainer"], **content["data"]["init_args"]}


@pytest.mark.parametrize(
    ("model", "lr", "min_lr", "epochs", "batch"),
    [("m3dfel", 5e-4, 5e-6, 300, 256), ("micacl", 4e-4, 3e-6, 300, 256), ("hdf", 5e-4, 5e-6, 100, 64)],
)
def test_recipes_are_the_papers(model: str, lr: float, min_lr: float, epochs: int, batch: int) -> None:
    found = recipe(model)
    assert (found["lr"], found["min_lr"], found["max_epochs"], found["batch_size"]) == (lr, min_lr, epochs, batch)
    assert found["weight_decay"] == 0.05
    assert found["warmup_epochs"] == 20
    assert found["pretrained"] is True


def test_baselines_differ_from_m3dfel_in_the_network_alone() -> None:
    reference = recipe("m3dfel")
    reference.pop("instances")
    for backbone in ("r3d_18", "mc3_18", "r2plus1d_18", "x3d_s", "resnet18_lstm"):
        found = recipe(backbone)
        assert found.pop("backbone") == backbone
        assert found == reference


def test_ial_is_the_only_difference_of_m3dfel_ial() -> None:
    found = recipe("m3dfel_ial")
    assert found.pop("ial") == 0.1
    assert found == recipe("m3dfel")


def test_every_quick_part_belongs_to_a_model() -> None:
    models = {path.name for path in (EXPERIMENTS / "model").glob("*.yaml")}
    assert {path.name for path in (EXPERIMENTS / "quick").glob("*.yaml")} <= models
