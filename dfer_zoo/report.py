"""The comparison as people read it: one table on the screen, in Markdown and in LaTeX; and its command."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from dfer_zoo.comparison import (
    ALPHA,
    MEASURES,
    Comparison,
    Method,
    collect,
    compare_methods,
    difference_of_clips,
    group_by_clips,
    people_of,
)
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.published import RECALLS, is_published_test_set, read_published
from dfer_zoo.results import RULES, WIDE, Run, how_to_test, load_run
from dfer_zoo.runs import BEST, CONFIG, write_text
from dfer_zoo.synthetic.dataset import MARKER


@dataclass(frozen=True)
class Grid:
    """A table of words, for the screen and for files.

    Args:
        title: what it is.
        cells: the words; the columns are the headings.
        notes: sentences below.
        text: columns of words, which stand on the left; numbers stand on the right.
        hidden: columns for which the screen is too narrow.
    """

    title: str
    cells: pd.DataFrame
    notes: tuple[str, ...] = ()
    text: tuple[str, ...] = ("method",)
    hidden: tuple[str, ...] = ()

    def rich(self) -> Table:
        """Return the table for the screen."""
        table = Table(title=escape(self.title), caption=escape("\n".join(self.notes)), caption_justify="left")
        cells = self.cells.drop(columns=list(self.hidden))
        for column in cells:
            table.add_column(column, justify="left" if column in self.text else "right", overflow="fold")
        for row in cells.itertuples(index=False):
            table.add_row(*(escape(cell.replace(" [", "\n[")) for cell in row))  # intervals below their values
        return table

    def markdown(self) -> str:
        """Return the table in Markdown."""
        from tabulate import tabulate

        cells = self.cells.map(lambda cell: cell.replace("|", r"\|"))
        body = tabulate(cells, list(cells), "pipe", showindex=False, disable_numparse=True, colalign=self._sides())
        return "\n\n".join([f"**{self.title}**", body, *self.notes]) + "\n"

    def latex(self) -> str:
        """Return a floating table in LaTeX; it needs the packages booktabs and graphicx."""
        from tabulate import LATEX_ESCAPE_RULES, tabulate

        body = tabulate(
            self.cells,
            ["".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in column) for column in self.cells],
            "latex_booktabs",
            showindex=False,
            disable_numparse=True,
            colalign=self._sides(),
        )
        caption = "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in " ".join([f"{self.title}.", *self.notes]))
        # \resizebox only shrinks what is too wide
        shrink = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
        lines = (r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", shrink, body + "}", r"\end{table}")
        return "\n".join(lines) + "\n"

    def _sides(self) -> list[str]:
        return ["left" if column in self.text else "right" for column in self.cells]


def points(share: float, low: float | None = None, high: float | None = None, sign: str = "") -> str:
    """Print a share as percent, with its interval where given; a dash where there is none.

    >>> points(0.7643, 0.69, 0.836), points(-0.02, -0.1, 0.06, sign="+"), points(-1e-9, sign="+")
    ('76.43 [69.0, 83.6]', '-2.00 [-10.0, +6.0]', '+0.00')
    """
    if pd.isna(share):
        return "-"
    ends = "" if low is None or pd.isna(low) else f" [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
    return f"{round(100 * share, 2) + 0.0:{sign}.2f}{ends}"  # no negative zero


def p_value(p: float) -> str:
    """Print a p-value.

    >>> p_value(0.0312), p_value(0.00001), p_value(float("nan"))
    ('0.031', '<0.001', '-')
    """
    return "-" if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def score_grid(comparison: Comparison) -> Grid:
    """Return the table of the methods: scores with intervals, recalls, cost; of the rule that is compared."""
    rows = comparison.rows[comparison.rows["rule"] == comparison.rows["rule"][0]]
    cells = pd.DataFrame({"method": rows["method"]})
    same = []
    for part in ("fold", "seed"):
        values = rows[f"{part}s"].str.replace(" ", ", ")
        if len(set(values)) > 1:
            cells[part] = values
        elif values[0]:
            same.append(f"{part} {values[0]}")
    for measure in MEASURES:
        cells[measure.upper()] = _with_intervals(rows, measure, measure)
    for part in ("fold", "seed"):
        spread = rows[[f"{measure}_{part}_sd" for measure in MEASURES]]
        if spread.notna().any(axis=None):
            cells[f"sd {part}"] = [
                "-" if pd.isna(war) else f"{100 * war:.1f}, {100 * uar:.1f}"
                for war, uar in spread.itertuples(index=False)
            ]
    for name in EMOTIONS:
        cells[name[:3]] = ["-" if pd.isna(value) else f"{100 * value:.1f}" for value in rows[name]]
    for column, name in (("parameters_m", "params M"), ("gmacs_per_clip", "GMACs"), ("clips_per_second", "clips/s")):
        cells[name] = ["-" if pd.isna(value) else f"{value:.3g}" for value in rows[column]]

    clips = f"{rows['clips'][0]} test clips"
    if comparison.by == "people":
        clips += f" of {rows['drawn_people'][0]} people"
    title = "; ".join([f"{comparison.dataset}: the same {clips}", *same, "percent", _checkpoint(rows["rule"][0])])
    notes = [
        f"[ ]: 95 % bootstrap interval, {comparison.by} drawn anew"
        f"{' within folds' if ' ' in rows['folds'][0] else ''}; the luck of training is not in it."
    ]
    if "sd fold" in cells or "sd seed" in cells:
        notes.append("sd: standard deviation of WAR, UAR between folds or seeds, in points.")
    return Grid(title, cells, tuple(notes), ("method", "fold", "seed"))


def rule_grid(comparison: Comparison) -> Grid:
    """Return the table of the rules: what a method scores by each, and what the papers' rule adds."""
    rows = comparison.rows
    cells = pd.DataFrame({"method": rows["method"], "checkpoint": [_rule_name(rule) for rule in rows["rule"]]})
    for measure in MEASURES:
        cells[measure.upper()] = _with_intervals(rows, measure, measure)
        above = f"{measure}_above_{BEST}"
        cells[f"{measure.upper()} above {BEST}"] = _with_intervals(rows, above, above, sign="+")
    notes = (
        f"What best_test has above {BEST} is optimism: its epoch was chosen on the very clips that it is scored on.",
        "[ ]: 95 % interval; of the differences from the same resamples for both.",
    )
    return Grid("Rules by which the checkpoint is chosen; percent, points", cells, notes, ("method", "checkpoint"))


def _with_intervals(rows: pd.DataFrame, column: str, ends: str, sign: str = "") -> list[str]:
    """Print a column of shares with its intervals."""
    columns = (rows[name] for name in (column, f"{ends}_low", f"{ends}_high"))
    return [points(*row, sign=sign) for row in zip(*columns, strict=True)]


def pair_grid(comparison: Comparison) -> Grid:
    """Return the table of the pairs: differences with intervals, p-values, verdict."""
    pairs = comparison.pairs
    cells = pd.DataFrame({"pair": pairs["first"] + " - " + pairs["second"]})
    for measure in MEASURES:
        cells[measure.upper()] = _with_intervals(pairs, f"{measure}_difference", measure, sign="+")
    names = {"mcnemar_p": "McNemar p"} if pairs["mcnemar_p"].notna().any() else {}
    names |= {"war_p_holm": "WAR, Holm p", "uar_p_holm": "UAR, Holm p"}
    again = pairs["war_training_p"].notna()
    if again.any():
        names |= {"war_training_p_holm": "WAR, training p", "uar_training_p_holm": "UAR, training p"}
    for column, name in names.items():
        cells[name] = [p_value(p) for p in pairs[column]]
    cells["verdict"] = pairs["verdict"]
    notes = [
        "Differences in points; 95 % intervals from the same resamples for both, not adjusted for the number of pairs.",
        f"Holm p: adjusted for {len(pairs)} pairs, decided below {ALPHA}. UAR: paired swap test.",
    ]
    if comparison.by == "people":
        notes.append(
            "WAR: the swap test too, which swaps whole people. McNemar's exact test (not adjusted) takes a person's "
            "clips as independent, which they are not."
        )
    elif pairs["mcnemar_p"].isna().any():
        notes.append("WAR: McNemar's exact test; for several seeds, which it cannot take, the swap test on their mean.")
    else:
        notes.append("WAR: McNemar's exact test, whose column is not adjusted.")
    notes.append("All this is about these trainings on other clips: another seed may change it.")
    if again.any():
        folds = " " in comparison.rows["folds"][0]
        test = "paired t test over folds, which share training clips" if folds else "Welch's t test over seeds"
        notes.append(f"Training p, adjusted too: {test}, each a training of its own; both p must be below {ALPHA}.")
    else:
        notes.append("With several seeds, or folds, of both methods that is tested too.")
    title = f"Paired differences on these clips; {_checkpoint(pairs['rule'][0])}"
    return Grid(title, cells, tuple(notes), ("pair", "verdict"))


def remarks(methods: Sequence[Method]) -> list[str]:
    """Say which runs were left out as repeats, and which folds and seeds are missing with the command that trains one.

    Methods that miss the same share a line.
    """
    lines = [
        f"{run.path} is left out: {method.name}{'' if run.fold is None else f', fold {run.fold}'}, seed {run.seed} was "
        "trained again with the same settings, and the newest run counts."
        for method in methods
        for run in method.repeats
    ]
    lacking: defaultdict[tuple[tuple[int, int], ...], list[Method]] = defaultdict(list)
    for method in methods:
        if method.missing():
            lacking[tuple(method.missing())].append(method)
    for missing, group in lacking.items():
        seeds = sorted({seed for _, seed in missing})
        shown = "; ".join(
            f"seed {seed} lacks fold {', '.join(str(fold) for fold, other in missing if other == seed)}"
            for seed in seeds
        )
        fold, seed = missing[0]
        config = group[0].runs[0].path / CONFIG
        lines.append(
            f"{', '.join(method.name for method in group)}: {shown}. To train what is missing, and so on: "
            f"`dfer-zoo fit --config {config} --data.fold {fold} --seed_everything {seed}`"
        )
    return lines


def published_grid(rows: pd.DataFrame, data: str, ours: bool) -> Grid:
    """Return the table of printed rows with their audit.

    Args:
        rows: of `read_published`.
        data: class of the dataset.
        ours: whether our rows were scored on the published test set.
    """
    cells = rows[["method", "venue", "year", "setting", "WAR", "UAR", *RECALLS]].copy()
    for measure in MEASURES:
        cells[f"{measure.upper()} from recalls"] = [
            "" if pd.isna(value) else f"{value:.2f} ({round(change, 2) + 0.0:+.2f})"
            for value, change in zip(rows[f"{measure}_recomputed"], rows[f"{measure}_difference"], strict=True)
        ]
    cells["audit"] = rows["audit"]
    warning = (
        () if ours else (f"These are from the real {data}. The runs above are not: nothing follows from comparing.",)
    )
    notes = (
        *warning,
        "As printed, from other protocols (most choose the checkpoint on the test clips), and so in none of our tests.",
        "From recalls: WAR and UAR recomputed from the row's recalls and the true class counts (minus the printed).",
    )
    text = ("method", "venue", "setting", "audit")
    return Grid(f"Printed for {data}; percent", cells, notes, text, hidden=("venue", *RECALLS))


def compare(
    runs: list[Path],
    baseline: str | None = None,
    rule: Literal["best_val", "last", "best_test", "all"] = "best_val",
    out: Path = Path("runs/comparison"),
    published: bool | None = None,
) -> None:
    """Compare methods: scores with intervals, paired tests, printed rows; on the screen, as files and as figures.

    The runs of a method (its folds and seeds) are put together; a table stands for each set of test clips.

    Args:
        runs: run folders, such as runs/m3dfel-dfew/fold1-seed0.
        baseline: name of a method; every other one is paired with it, rather than all with all.
        rule: which checkpoint: chosen on validation clips, the last, chosen on the test clips as in the papers, or all
            three below each other.
        out: folder for comparison.csv, pairs.csv, comparison.md, comparison.tex and the figures.
        published: show what papers print beside it; by default where the runs were scored on the published test set.

    Raises:
        InputError: a folder that is no finished run, or was not tested by the rule; the same run twice; a baseline that
            is not there, or did not score the same clips as any other method.
    """
    from dfer_zoo import figures

    main_rule = BEST if rule == "all" else rule
    loaded, notes = _load(runs, main_rule, RULES if rule == "all" else (rule,))
    methods = collect(loaded)
    groups = group_by_clips([method for method in methods if method.rule == main_rule])
    _check_baseline(baseline, groups)

    console = Console(width=max(Console().width, WIDE))
    comparisons, texts = [], []
    for number, group in enumerate(groups, 1):
        others = [
            method
            for method in methods
            if method.rule != main_rule
            and any(method.name == own.name and difference_of_clips(method, own) is None for own in group)
        ]
        comparison = compare_methods([*group, *others], baseline, people_of(group), main_rule)
        comparisons.append(comparison)
        grids = [score_grid(comparison)]
        grids += [rule_grid(comparison)] if others else []
        grids += [pair_grid(comparison)] if len(comparison.pairs) else []
        notes += remarks(group)
        printed, note = _published(group, published)
        grids += [] if printed is None else [printed]
        notes += [] if note is None else [note]
        for grid in grids:
            console.print(grid.rich())
        texts += grids
        suffix = f"-{number}" if number > 1 else ""
        for path in figures.draw_comparison(comparison, Path(out), suffix):
            console.print(f"Figure: {path}", markup=False)
    notes += [
        f"Not paired: {first[0].name} and {second[0].name} did not score the same clips: "
        f"{difference_of_clips(first[0], second[0])}."
        for place, first in enumerate(groups)
        for second in groups[:place]
        if first[0].data == second[0].data
    ]
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)  # commands can be copied
    write_text(Path(out) / "comparison.csv", pd.concat([one.rows for one in comparisons]).to_csv(index=False))
    write_text(Path(out) / "pairs.csv", pd.concat([one.pairs for one in comparisons]).to_csv(index=False))
    paragraphs = "".join(f"- {note}\n" for note in notes)
    write_text(Path(out) / "comparison.md", "\n".join(grid.markdown() for grid in texts) + f"\n{paragraphs}")
    header = "% \\usepackage{booktabs,graphicx}\n"
    write_text(Path(out) / "comparison.tex", header + "\n".join(grid.latex() for grid in texts))
    console.print(f"Tables: {Path(out) / 'comparison.csv'}, pairs.csv, comparison.md, comparison.tex", markup=False)


def _rule_name(rule: str) -> str:
    return f"{rule} ({RULES[rule]})"


def _checkpoint(rule: str) -> str:
    return f"checkpoint: {_rule_name(rule)}"


def _load(runs: Sequence[Path], main_rule: str, rules: Sequence[str]) -> tuple[list[Run], list[str]]:
    """Read the runs' evaluations by the main rule, which each must have, and by the others, which are noted if not."""
    if not runs:
        raise InputError("No runs given. Name at least one folder such as runs/m3dfel-dfew/fold1-seed0.")
    loaded, lacking = [], {}
    for path in track([Path(run) for run in runs], description="Reading runs", transient=True):
        loaded.append(load_run(path, main_rule))
        for rule in rules:
            try:
                loaded += [load_run(path, rule)] if rule != main_rule else []
            except DataError:
                raise
            except InputError:
                lacking.setdefault(rule, []).append(path)
    notes = [
        f"{len(paths)} of {len(runs)} runs were not scored by {_rule_name(rule)}. For the first: "
        f"{how_to_test(paths[0], rule)}"
        for rule, paths in lacking.items()
    ]
    return loaded, notes


def _check_baseline(baseline: str | None, groups: Sequence[Sequence[Method]]) -> None:
    """Raise InputError for a baseline that cannot be paired with anything."""
    if baseline is None:
        return
    own = [group for group in groups if baseline in {method.name for method in group}]
    if not own:
        names = ", ".join(sorted({method.name for group in groups for method in group}))
        raise InputError(f"There is no method {baseline!r} for a baseline; the runs are of {names}.")
    if any(len(group) > 1 for group in own):
        return
    base = own[0][0]
    others = [method for group in groups for method in group if method.name != baseline]
    if not others:
        raise InputError(f"{baseline} is the only method: name runs of another one too.")
    raise InputError(
        f"No method scored the same clips as {baseline}. Against {others[0].name}: "
        f"{difference_of_clips(base, others[0])}. Name runs of the same folds."
    )


def _published(group: Sequence[Method], wanted: bool | None) -> tuple[Grid | None, str | None]:
    """Return the table of printed rows, and a note where there is none because the runs are on generated data."""
    data = group[0].data
    if wanted is False or data not in ("DFEW", "FERV39k"):
        return None, None
    roots = {run.root for method in group for run in method.runs}
    ours = is_published_test_set(data, group[0].clips) and not any((root / MARKER).is_file() for root in roots)
    if ours or wanted:
        return published_grid(read_published(data), data, ours), None
    return None, (
        f"These runs were not scored on the published test clips of {data} (generated data, or a part of the set): "
        "what papers print is left out; --published true shows it all the same."
    )
