"""Compare speeds on a machine whose speed varies: the variants take turns in one process, and ratios are what counts.

Times are of the wall clock, with as many threads of torch as the title says: all processors where a script sets none.
Each module is a script, such as ``python -m tests.benchmarks.data_path``; pytest does not collect them.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table


def alternate(variants: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Time variants in turns; a first round, which fills caches and compiles, is not counted.

    Args:
        variants: functions by name; each does the same amount of work.
        rounds: number of times that each is timed.

    Returns:
        Median seconds of a call of each variant, by the wall clock.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in track(range(rounds + 1), description="Alternating", transient=True):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if round_ > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken)) for name, taken in seconds.items()}


def print_ratios(
    title: str, seconds: Mapping[str, float], baseline: str, unit_per_call: float = 1, unit: str = "calls"
) -> None:
    """Print a table of speeds and of their ratios to a baseline's.

    Args:
        title: of the table.
        seconds: median seconds of a call, as `alternate` returns them.
        baseline: name of the variant whose ratio is 1.
        unit_per_call: number of units that a call works off.
        unit: its name in the plural, such as ``clips``.
    """
    threads = torch.get_num_threads()
    table = Table(title=f"{title}; wall time, {threads} thread{'s' * (threads > 1)}")
    for column in ("variant", "ms a call", f"{unit}/s", f"ratio to {baseline}"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, taken in seconds.items():
        speed = unit_per_call / taken
        table.add_row(name, f"{1e3 * taken:.1f}", f"{speed:,.1f}", f"{seconds[baseline] / taken:.2f}")
    Console(width=max(Console().width, 110)).print(table)
