"""Memory and speed of training steps against batch, frames, bag size and recomputed activations.

Run ``python -m tests.benchmarks.scaling [m3dfel|hdf ...]`` on a machine that does nothing else; it takes minutes.
"""

import argparse
from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from dfer_zoo.profile import HeldBatches, Rounds, in_own_process, step_memory, train_steps
from dfer_zoo.recipes import Recipe, merge, read_recipes

from .steps import EXPERIMENTS

BATCHES = {"m3dfel": (1, 4, 8), "hdf": (1, 2, 4)}
"""Clips a step; the middle one where something else varies."""
FRAMES = (8, 16, 32)
INSTANCES = (1, 2, 4, 8, 16)


def cases(name: str) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield batch, data's options and model's options of what is compared."""
    batches = BATCHES[name]
    for batch in batches:
        yield batch, {}, {}
    yield batches[-1], {}, {"recompute": True}
    for frames in FRAMES:
        yield batches[1], {"frames": frames}, {}
    for instances in INSTANCES if name == "m3dfel" else ():
        yield batches[1], {}, {"instances": instances}


def measure(recipe: Recipe, precision: str, batch: int) -> tuple[float, float, float]:
    """Return GiB of a training step, and clips a second in training and inference."""
    memory = step_memory(recipe, precision, batch)
    clock = Rounds(lambda: None)
    train_steps(recipe.model(), HeldBatches(*recipe.shape, batch, 4), precision, clock)
    return (memory or 0) / 2**30, batch / median(clock.training), batch / median(clock.inference)


def main() -> None:
    """Measure and print, each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", choices=[*BATCHES, []], metavar="MODEL", help=", ".join(BATCHES))
    for name in parser.parse_args().models or BATCHES:
        (recipe,) = read_recipes(EXPERIMENTS, [name], "dfew")
        precision = recipe.precisions[-1]
        table = Table(title=f"Training steps of {name}, {precision}")
        for column in ("batch", "options", "GiB", "training, clips/s", "inference, clips/s"):
            table.add_column(column, justify="left" if column == "options" else "right")
        for batch, data, model in cases(name):
            config = merge(recipe.config, {"data": {"init_args": data}, "model": {"init_args": model}})
            gib, *speeds = in_own_process(measure, Recipe(name, config), precision, batch)
            options = ", ".join(f"{key} {value}" for key, value in {**data, **model}.items())
            table.add_row(str(batch), options, f"{gib:.2f}", *(f"{speed:.2f}" for speed in speeds))
            Console().print(f"{name}, {batch} clips, {options or 'the recipe'}: {gib:.2f} GiB")
        Console().print(table)


if __name__ == "__main__":
    main()
