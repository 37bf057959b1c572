"""The comparison as tables and files, and the command."""

import io
import itertools
import multiprocessing
import os
import re
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from test_results import shown, write_evaluation, write_run

from dfer_zoo import figures
from dfer_zoo.__main__ import main
from dfer_zoo.comparison import collect, compare_methods
from dfer_zoo.data import dfew, ferv39k
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.report import Grid, compare, pair_grid, rule_grid, score_grid
from dfer_zoo.results import load_run

pytestmark = pytest.mark.usefixtures("no_collection")

RULES = ("best_val", "last", "best_test")


def comparison_of(*paths: Path, rules: tuple[str, ...] = ("best_val",)):
    return compare_methods(collect([load_run(path, rule) for path in paths for rule in rules]))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "draw_comparison", lambda *_: [])


@pytest.fixture
def grid() -> Grid:
    cells = pd.DataFrame({"method": ["a_b [x]", "c|d"], "WAR": ["76.43 [69.0, 83.6]", "5 & 6 %"], "seen": ["1", "2"]})
    return Grid("A title: 50 % of {it}", cells, ("One note.", "Two # notes."), hidden=("seen",))


def test_the_screen_shows_all_but_what_is_hidden(grid: Grid) -> None:
    text = shown(grid.rich())
    for words in ("A title: 50 % of {it}", "a_b", "[x]", "c|d", "76.43", "[69.0, 83.6]", "One note.", "Two # notes."):
        assert words in text
    assert "seen" not in text


def test_markdown_has_a_row_a_method(grid: Grid) -> None:
    lines = grid.markdown().splitlines()
    assert lines[0] == "**A title: 50 % of {it}**"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in table)
    assert [cell.strip() for cell in table[2].split("|")[1:-1]] == ["a_b [x]", "76.43 [69.0, 83.6]", "1"]
    assert "One note." in lines


def test_latex_is_escaped_and_closed(grid: Grid) -> None:
    text = grid.latex()
    for begin in ("table", "tabular"):
        assert text.count(rf"\begin{{{begin}}}") == text.count(rf"\end{{{begin}}}") == 1
    assert re.findall(r"\\(?:top|mid|bottom)rule", text) == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    assert r"\caption{A title: 50 \% of \{it\}. One note. Two \# notes.}" in text
    rows = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == 2
    assert all(row.endswith(r"\\") and len(re.findall(r"(?<!\\)&", row)) == 2 for row in rows)
    assert r"a\_b [x]" in rows[0]
    assert r"5 \& 6 \%" in rows[1]
    assert r"\begin{tabular}{lrr}" in text


def test_scores_are_in_percent_with_their_intervals(tmp_path: Path) -> None:
    comparison = comparison_of(write_run(tmp_path, "a"), write_run(tmp_path, "b", right=0.5, cost=False))
    grid = score_grid(comparison)
    row = comparison.rows.iloc[0]
    assert grid.cells["WAR"][0] == f"75.00 [{100 * row['war_low']:.1f}, {100 * row['war_high']:.1f}]"
    assert grid.cells["Hap"].tolist() == ["75.0", "50.0"]
    assert grid.cells["Fea"].tolist() == ["-", "-"]
    assert grid.cells[["params M", "GMACs", "clips/s"]].to_numpy().tolist() == [["33.2", "4.25", "12.5"], ["-"] * 3]
    assert grid.title == (
        "DFEW: the same 24 test clips; fold 1; seed 0; percent; checkpoint: best_val (chosen on the validation clips)"
    )
    assert "sd fold" not in grid.cells


def test_several_folds_and_seeds_show_their_spread(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, "a", fold, seed, right=(fold + seed) / 4) for fold in (1, 2) for seed in (0, 1)]
    paths += [write_run(tmp_path, "b", fold) for fold in (1, 2)]
    grid = score_grid(comparison_of(*paths))
    assert "fold 1, 2" in grid.title
    assert grid.cells["seed"].tolist() == ["0, 1", "0"]
    sd = 100 * np.std([0.25, 0.5], ddof=1)
    assert grid.cells["sd fold"].tolist() == [f"{sd:.1f}, {sd:.1f}", "0.0, 0.0"]
    assert grid.cells["sd seed"].tolist() == [f"{sd:.1f}, {sd:.1f}", "-"]
    assert "within folds" in grid.notes[0]


def test_pairs_are_in_points(tmp_path: Path) -> None:
    comparison = comparison_of(write_run(tmp_path, "a", right=1.0), write_run(tmp_path, "b", right=0.25))
    cells = pair_grid(comparison).cells
    assert cells["pair"][0] == "a - b"
    assert cells["WAR"][0].startswith("+75.00 [+")
    assert cells["McNemar p"][0] == "<0.001"
    assert cells["verdict"][0] == "a better on these trainings"


def test_the_papers_rule_is_labelled_wherever_it_stands(tmp_path: Path) -> None:
    path = write_run(tmp_path, "a", rules=RULES)
    clips = load_run(path).predictions
    right = np.arange(len(clips)) % 8 > 0
    write_evaluation(path, right, clips["label"].to_numpy(), clips["clip"].tolist(), "best_test")
    cells = rule_grid(comparison_of(path, rules=RULES)).cells
    assert cells["checkpoint"].tolist() == [
        "best_val (chosen on the validation clips)",
        "last (the last epoch)",
        "best_test (chosen on the test clips)",
    ]
    assert cells["WAR above best_val"][0] == "-"
    assert cells["WAR above best_val"][1].startswith("+0.00")
    assert cells["WAR above best_val"][2].startswith("+12.50")
    alone = compare_methods(collect([load_run(path, "best_test")]), rule="best_test")
    assert "best_test (chosen on the test clips)" in score_grid(alone).title


def test_the_command_writes_tables_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_run(tmp_path, name, right=right) for name, right in (("a", 0.75), ("b", 0.5), ("c", 0.5))]
    out = tmp_path / "out"
    assert main(["compare", *map(str, paths), "--baseline", "b", "--out", str(out)]) == 0
    text = said(capsys)
    assert "75.00" in text
    table = pd.read_csv(out / "comparison.csv")
    assert table["method"].tolist() == ["a", "b", "c"]
    assert table["war"].tolist() == [0.75, 0.5, 0.5]
    pairs = pd.read_csv(out / "pairs.csv")
    assert pairs[["first", "second"]].to_numpy().tolist() == [["a", "b"], ["c", "b"]]
    assert (out / "comparison.md").read_text().count("**") == 4
    latex = (out / "comparison.tex").read_text()
    assert latex.startswith("% \\usepackage{booktabs,graphicx}")
    assert latex.count(r"\begin{table}") == 2
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["confusion.png", "forest.png", "recalls.png"]
    assert len(list(out.iterdir())) == 7
    assert "a, b, c: seed 0 lacks fold 2, 3, 4, 5" in text


def test_killed_while_it_writes_the_same_words_write_it_all(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, right=right) for name, right in (("a", 0.75), ("b", 0.5))]
    compare(paths, out=tmp_path / "whole")
    whole, out = visible(tmp_path / "whole"), tmp_path / "out"
    assert len(whole) == 7
    for number in (1, 5):  # among the figures, among the tables
        process = multiprocessing.get_context("fork").Process(target=compare_until, args=(number, paths, out))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(visible(out)) == number
        assert visible(out).items() <= whole.items()
    compare(paths, out=out)
    assert visible(out) == whole


def compare_until(number: int, paths: list[Path], out: Path) -> None:
    """Compare in a process that is killed when that many files are written and the next one lacks its name alone."""
    replace, done = Path.replace, itertools.count()

    def replace_or_die(path: Path, target: Path) -> Path:
        if next(done) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = replace_or_die
    compare(paths, out=out)


def visible(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, if there is one, without the hidden ones that a killed process leaves."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def test_other_test_clips_stand_apart_and_are_not_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = [write_run(tmp_path, "whole", fold) for fold in (1, 2)]
    part = [write_run(tmp_path, name, 1) for name in ("a", "b")]
    compare([*whole, *part], out=tmp_path / "out")
    text = said(capsys)
    assert "the same 48 test clips" in text
    assert "the same 24 test clips" in text
    assert (
        "Not paired: a and whole did not score the same clips: 24 clips only in whole (20000, 20001, 20002, ...)."
        in text
    )
    assert pd.read_csv(tmp_path / "out" / "pairs.csv")[["first", "second"]].to_numpy().tolist() == [["a", "b"]]
    assert (tmp_path / "out" / "forest-2.png").is_file()


@pytest.mark.usefixtures("no_pictures")
def test_one_method_has_no_pairs(tmp_path: Path) -> None:
    compare([write_run(tmp_path)], out=tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "pairs.csv").empty


@pytest.mark.usefixtures("no_pictures")
def test_all_rules_stand_below_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_run(tmp_path, "a", rules=RULES), write_run(tmp_path, "b")]
    compare(paths, rule="all", out=tmp_path / "out")
    text = said(capsys)
    assert text.count("best_test (chosen on the test clips)") == 2  # the row of a, and the note about b
    assert (
        f"1 of 2 runs were not scored by last (the last epoch). For the first: `dfer-zoo fit --config {paths[1]}"
        in text
    )
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table[["method", "rule"]].to_numpy().tolist() == [["a", rule] for rule in RULES] + [["b", "best_val"]]


def test_a_rule_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no test-last.json. Run `dfer-zoo fit"):
        compare([write_run(tmp_path)], rule="last", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("x", "no method 'x' for a baseline; the runs are of a, b, c."),
        (
            "c",
            r"No method scored the same clips as c. Against a: 7 clips only in c \(10024, .*of the same folds",
        ),
    ],
)
def test_a_baseline_that_cannot_be_paired_is_refused(tmp_path: Path, baseline: str, message: str) -> None:
    paths = [write_run(tmp_path, "a"), write_run(tmp_path, "b"), write_run(tmp_path / "2", "c", counts=(4,) * 6 + (7,))]
    with pytest.raises(InputError, match=message):
        compare(paths, baseline=baseline, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_baseline_that_is_alone_on_another_dataset_is_paired_where_it_is_not(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name) for name in ("a", "b")]
    compare([*paths, write_run(tmp_path, "b", None, data="FERV39k")], baseline="b", out=tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "pairs.csv")[["first", "second"]].to_numpy().tolist() == [["a", "b"]]


def test_a_baseline_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a is the only method"):
        compare([write_run(tmp_path, "a")], baseline="a", out=tmp_path / "out")


def test_folders_that_cannot_be_compared_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No runs given"):
        compare([], out=tmp_path / "out")
    with pytest.raises(InputError, match="no run folder"):
        compare([write_run(tmp_path), tmp_path], out=tmp_path / "out")
    other = write_run(tmp_path, "b")
    (other / "evaluations" / "test-best_val.csv").unlink()
    with pytest.raises(DataError, match="no predictions"):
        compare([write_run(tmp_path, "a"), other], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("data", "fold"), [("DFEW", 5), ("FERV39k", None)])
def test_printed_rows_stand_beside_runs_on_the_published_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: str, fold: int | None
) -> None:
    counts = (5, 4, 3, 2, 1, 1, 1)  # a published set that is quickly drawn from
    monkeypatch.setattr(ferv39k, "TEST_COUNTS", counts)
    monkeypatch.setitem(dfew.TEST_COUNTS, 5, counts)
    run = write_run(tmp_path, fold=fold, data=data, counts=counts, root=str(tmp_path / "data"))
    compare([run], out=tmp_path / "out")
    text = said(capsys)
    assert f"Printed for {data}" in text
    assert "The runs above are not" not in text
    assert ("50.30" if data == "FERV39k" else "71.60") in text
    assert pd.read_csv(tmp_path / "out" / "comparison.csv")["method"].tolist() == ["m3dfel"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "synthetic.json").write_text("{}")
    compare([run], out=tmp_path / "out")
    assert "Printed for" not in said(capsys)


@pytest.mark.usefixtures("no_pictures")
def test_printed_rows_beside_generated_data_come_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    compare([run], out=tmp_path / "out")
    text = said(capsys)
    assert "Printed for" not in text
    assert "not scored on the published test clips of DFEW" in text
    assert "--published true" in text
    assert main(["compare", str(run), "--out", str(tmp_path / "out"), "--published", "true"]) == 0
    assert "These are from the real DFEW. The runs above are not" in said(capsys)
    compare([run], out=tmp_path / "out", published=False)
    assert "published" not in said(capsys).lower()


@pytest.mark.usefixtures("no_pictures")
def test_other_data_has_no_printed_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare([write_run(tmp_path, data="Clips", fold=None)], out=tmp_path / "out", published=True)
    assert "Printed" not in said(capsys)


def test_a_narrow_screen_loses_no_number(tmp_path: Path) -> None:
    grid = score_grid(comparison_of(write_run(tmp_path, "a_method_of_some_length")))
    console = Console(width=130, record=True, color_system=None, file=io.StringIO())
    console.print(grid.rich())
    text = console.export_text()
    for name in EMOTIONS[:6]:
        assert name[:3] in text
    assert text.count("75.0") >= 8
