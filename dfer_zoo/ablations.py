"""The papers' ablation tables: each row a training of its own, our numbers beside the printed ones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dfer_zoo.crossval import Result, carry_out, folds_of, numbers, recipe, shared_words, trainings
from dfer_zoo.results import WIDE, percent
from dfer_zoo.runs import write_text


def read_table(name: str, quick: bool = False) -> dict[str, Any]:
    """Read a file of experiments/ablations.

    Args:
        name: of the file.
        quick: whether the quick recipe is taken.

    Returns:
        ``model``, ``data``, ``folds`` and ``rows``, each with its ``name``, ``method`` (which names its folder),
        ``options`` for `fit`, and the printed ``war`` and ``uar``, in percent.

    Raises:
        InputError: there is none of that name.
    """
    table = yaml.safe_load(recipe("ablations", name).read_text(encoding="utf-8"))
    for row in table["rows"]:
        own = row.pop("quick", {})
        if quick:
            row["options"] |= table.get("quick", {}) | own
            if "quick" in table:  # options that the other runs of the row's method do not have
                row["method"] = f"{name}_{row['name']}"
        row.setdefault("method", f"{name}_{row['name']}")
    return table


def option_words(options: dict[str, Any]) -> list[str]:
    """Return options as words of the command line.

    >>> option_words({"model.lstm": False, "model.ial": 0})
    ['--model.lstm=false', '--model.ial=0']
    """
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]


def compared(table: Mapping[str, Any], found: Sequence[Result]) -> pd.DataFrame:
    """Return a row for each row of the table and rule: our WAR and UAR (0..1) with their spread, and the printed ones.

    Args:
        table: see `read_table`.
        found: what its runs say; rows without any keep the printed numbers alone.
    """
    by_method = {result.folder.name.rpartition("-")[0]: result for result in found}
    lines = []
    for row in table["rows"]:
        printed = {f"printed_{name}": round(row[name] / 100, 4) for name in ("war", "uar")}
        named = {"row": row["name"], "method": row["method"], "options": " ".join(option_words(row["options"]))}
        result = by_method.get(row["method"])
        if result is None:
            lines.append({**named, "rule": None, "runs": 0, **printed})
            continue
        for rule in result.methods:
            measured = {
                f"{name}{'' if key == 'mean' else f'_{key}'}": value
                for name, values in result.spread(rule).items()
                for key, value in values.items()
            }
            lines.append({**named, "rule": rule, "runs": len(result.of(rule)), **measured, **printed})
    return pd.DataFrame(lines)


def spoken(mean: float, sd_folds: float | None, sd_seeds: float | None) -> str:
    """Print a mean with its standard deviation over folds or, for want of them, over seeds; percent.

    >>> spoken(0.6925, None, 0.005)
    '69.25 ± 0.50'
    """
    deviation = sd_seeds if sd_folds is None else sd_folds
    return percent(mean) + ("" if deviation is None else f" ± {percent(deviation)}")


def ablation_table(rows: pd.DataFrame, title: str, caption: str) -> Table:
    """Return the rich table of what `compared` returns; percent."""
    table = Table(title=title, caption=caption)
    for column in ("row", "options", "rule", "runs", "WAR", "UAR", "printed WAR", "printed UAR"):
        table.add_column(column, justify="left" if column in ("row", "options", "rule") else "right", overflow="fold")
    for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        ours = [
            spoken(row[name], row[f"{name}_sd_folds"], row[f"{name}_sd_seeds"]) if row["runs"] else "-"
            for name in ("war", "uar")
        ]
        named = (row["row"], row["options"].replace("--", "") or "-", row["rule"] or "-")
        printed = (percent(row["printed_war"]), percent(row["printed_uar"]))
        table.add_row(*map(escape, named), str(row["runs"]), *ours, *printed)
    return table


def ablation(
    table: str,
    data: str | None = None,
    folds: str | None = None,
    seeds: str = "0",
    quick: bool = False,
    runs: Path = Path("runs"),
    root: Path | None = None,
    jobs: int = 1,
    list: bool = False,
    fit_options: Sequence[str] = (),
) -> int:
    """Train and test the rows of a paper's ablation table, and print our numbers beside the printed ones.

    Args:
        table: a name in experiments/ablations.
        data: a name in experiments/data; the table's by default.
        folds: such as 1-5 or 1,3; the table's by default.
        seeds: such as 0-2.
        quick: take the recipe for 2 CPU cores.
        runs: folder of all runs.
        root: folder of the dataset.
        jobs: processes at once, which share the CPU's threads and take one GPU each.
        list: run nothing; print the state of all runs, and the commands of the missing ones for other machines.
        fit_options: words for `fit`.

    Returns:
        The exit status: 0, 1 if a run failed, 128 and its number if stopped by a signal.

    Raises:
        InputError: names that there are not, or options that `fit` refuses.
    """
    content = read_table(table, quick)
    data = data or content["data"]
    shared, wanted = shared_words(runs, root, fit_options), []
    (first,) = trainings("", content["model"], data, [None], [0], quick, shared)
    chosen = folds_of(data, folds or (str(content["folds"]) if data == content["data"] else None), first.words)
    for row in content["rows"]:
        more = [*option_words(row["options"]), *shared, "--method", row["method"]]
        wanted += trainings(row["name"], content["model"], data, chosen, numbers(seeds, "seeds"), quick, more)
    status, found = carry_out(wanted, jobs, list)
    if found:
        rows = compared(content, found)
        path = runs / "ablations" / f"{table}-{data}.csv"
        write_text(path, rows.to_csv(index=False))
        write_text(path.with_suffix(".json"), rows.to_json(orient="records", indent=2) + "\n")
        console = Console(width=max(Console().width, WIDE))
        caption = f"Printed: on {content['data']}, fold {content['folds']}, by the paper's own protocol"
        title = f"{table} on {data}: mean ± standard deviation over folds (seeds, if there is one fold); percent"
        console.print(ablation_table(rows, title, caption))
        console.print(f"Tables: {path}, {path.with_suffix('.json').name}", markup=False)
    return status
