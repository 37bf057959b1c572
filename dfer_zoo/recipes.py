"""The recipes of ``experiments/`` in Python, without a command line."""

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from dfer_zoo.classes import class_named
from dfer_zoo.data import DFERData
from dfer_zoo.errors import InputError
from dfer_zoo.models import DFERModel
from dfer_zoo.precision import choose_precision


@dataclass(frozen=True)
class Recipe:
    """The yaml files of a training, merged as the command line merges them.

    Args:
        name: of the model's yaml.
        config: their content, the later over the earlier.
    """

    name: str
    config: dict[str, Any]

    @property
    def precisions(self) -> list[str]:
        """32-bit floats, and what the recipe trains in where that is something else."""
        return list(dict.fromkeys(["32-true", self.config["trainer"]["precision"] or choose_precision()]))

    @property
    def shape(self) -> tuple[int, int]:
        """Frames of a clip and their side in pixels."""
        return self.config["data"]["init_args"]["frames"], self.config["data"]["init_args"]["size"]

    def model(self) -> DFERModel:
        """Build the model with random weights."""
        build = class_named(self.config["model"]["class_path"], DFERModel)
        options = {**self.config["model"]["init_args"], "pretrained": False}
        shared = dict(zip(("frames", "size"), self.shape, strict=True))
        taken = signature(build).parameters.keys() & shared.keys()
        return build(**{name: shared[name] for name in taken}, **options)

    def data(self, root: Path, batch: int) -> DFERData:
        """Build the data module on another root, reading in this process, with batches of another size."""
        build = class_named(self.config["data"]["class_path"], DFERData)
        return build(**{**self.config["data"]["init_args"], "root": str(root), "batch_size": batch, "workers": 0})

    def hours(self, clips: int, held_out: float, training: float, inference: float) -> float:
        """Return how long a training takes if the data keep up, in hours, validation after every epoch included.

        Args:
            clips: of the dataset's own training part.
            held_out: share of them that is validated on instead.
            training: clips a second in training.
            inference: clips a second in validation.

        >>> Recipe("hdf", {"trainer": {"max_epochs": 100}}).hours(10_000, 0.1, training=500, inference=1000)
        0.5277777777777778
        """
        seconds = clips * ((1 - held_out) / training + held_out / inference)
        return self.config["trainer"]["max_epochs"] * seconds / 3600


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return the content of two yaml files, the second over the first.

    >>> merge({"data": {"size": 112, "frames": 16}}, {"data": {"size": 48}})
    {'data': {'size': 48, 'frames': 16}}
    """
    both = {key: merge(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(over[key], dict)}
    return {**base, **over, **both}


def read_recipes(experiments: Path, names: list[str], data: str, quick: bool = False) -> list[Recipe]:
    """Read the recipes of models.

    Args:
        experiments: the folder of the yaml files.
        names: of the models; none for all of them.
        data: name of the data's yaml.
        quick: put the recipe for a small machine over the papers'.

    Raises:
        InputError: no such folder or no such model.
    """
    known = sorted(path.stem for path in (experiments / "model").glob("*.yaml"))
    if not known:
        raise InputError(f"{experiments} holds no model/*.yaml. Name the checkout's folder with --experiments.")
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"There is no model {unknown[0]!r} in {experiments}. There are: {', '.join(known)}.")
    recipes = []
    for name in names or known:
        files = [experiments / "trainer.yaml", experiments / f"data/{data}.yaml", experiments / f"model/{name}.yaml"]
        if quick:
            files += [experiments / "quick.yaml", *experiments.glob(f"quick/{name}.yaml")]
        config: dict[str, Any] = {}
        for file in files:
            config = merge(config, yaml.safe_load(file.read_text(encoding="utf-8")))
        recipes.append(Recipe(name, config))
    return recipes
