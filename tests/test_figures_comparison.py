"""Forest plots: the values and intervals drawn are those of the comparison."""

from pathlib import Path

import numpy as np
import pytest
from test_results import write_run

from dfer_zoo import figures
from dfer_zoo.comparison import Comparison, collect, compare_methods
from dfer_zoo.results import load_run

pytestmark = pytest.mark.usefixtures("no_collection")


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    rules = ("best_val", "best_test")
    paths = [write_run(tmp_path, name, right=right, rules=rules) for name, right in (("a", 0.75), ("b", 0.5))]
    return compare_methods(collect([load_run(path, rule) for path in paths for rule in rules]))


def drawn(axes) -> tuple[list[float], np.ndarray]:
    """Values and intervals ``(n, 2)`` in a forest plot, from above."""
    segments = axes.collections[0].get_segments()  # empty where there is no interval
    return axes.lines[0].get_xdata().tolist(), np.array([segment[:, 0] for segment in segments if len(segment)])


def test_forest_draws_values_and_intervals_from_above() -> None:
    axes = figures.new_figure(1, 1, 3, 3)[1][0, 0]
    values, lows, highs = np.array([[3.0, 1.0], [2.0, np.nan], [5.0, np.nan]])
    figures.forest(["first", "second"], values, lows, highs, axes)
    found, ends = drawn(axes)
    assert found == [3, 1]
    np.testing.assert_array_equal(ends, [[2, 5]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_forests_show_every_row_and_pair(comparison: Comparison) -> None:
    rows, pairs = comparison.rows, comparison.pairs
    top, top_uar, bottom, bottom_uar = figures.forests(comparison).axes
    labels = [label.get_text() for label in top.get_yticklabels()]
    test_rule = "best_test (chosen on the test clips)"
    assert labels == ["a", f"a, {test_rule}", "b", f"b, {test_rule}"]
    assert [label.get_text() for label in bottom.get_yticklabels()] == ["a - b"]
    for axes, table, column, ends in (
        (top, rows, "war", "war"),
        (top_uar, rows, "uar", "uar"),
        (bottom, pairs, "war_difference", "war"),
        (bottom_uar, pairs, "uar_difference", "uar"),
    ):
        values, intervals = drawn(axes)
        np.testing.assert_allclose(values, 100 * table[column])
        np.testing.assert_allclose(intervals, 100 * table[[f"{ends}_low", f"{ends}_high"]])
        assert axes.get_xlabel().startswith(ends.upper())


def test_a_single_method_has_no_row_of_differences(tmp_path: Path) -> None:
    comparison = compare_methods(collect([load_run(write_run(tmp_path))]))
    assert len(figures.forests(comparison).axes) == 2


def test_matrices_and_recalls_are_those_of_the_compared_rule(comparison: Comparison, tmp_path: Path) -> None:
    paths = figures.draw_comparison(comparison, tmp_path / "out", "-2")
    assert [path.name for path in paths] == ["forest-2.png", "confusion-2.png", "recalls-2.png"]
    assert all(path.stat().st_size > 5000 for path in paths)
