"""Figures: the numbers drawn are those given, and the files are pictures."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import write_dfew
from matplotlib.colors import to_hex

from dfer_zoo import figures
from dfer_zoo.data import DFEW
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.runs import evaluate, write_json, write_text


@pytest.fixture
def axes():
    return figures.new_figure(1, 1, 4, 4)[1][0, 0]


def test_confusion_matrix_is_in_percent_of_each_true_class(axes) -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 1, 5]])
    figures.confusion_matrix(confusion, axes, "title", ("Happy", "Sad", "Fear"))
    drawn = {text.get_position(): text.get_text() for text in axes.texts}
    expected = [["75", "25", "0"], ["0", "0", "0"], ["25", "12", "62"]]
    assert [[drawn[column, row] for column in range(3)] for row in range(3)] == expected
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Happy (4)", "Sad (0)", "Fear (8)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Happy", "Sad", "Fear"]
    np.testing.assert_allclose(axes.images[0].get_array()[0], [75, 25, 0])


def test_recall_bars_have_the_recalls_heights(axes) -> None:
    recalls = {"a": {"Happy": 0.5, "Sad": None}, "b": {"Happy": 0.25, "Sad": 1.0}}
    figures.recall_bars(recalls, axes)
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    assert heights == [[50, 0], [25, 100]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    bars = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for group in axes.containers for bar in group)
    assert all(left_end <= start + 1e-9 for (_, left_end), (start, _) in pairwise(bars))


@pytest.mark.parametrize(("label", "color"), [(2, figures.RIGHT), (0, figures.WRONG), (-1, figures.RIGHT)])
def test_probability_bars_say_whether_the_model_is_right(axes, label: int, color: str) -> None:
    probabilities = np.array([0.1, 0.2, 0.4, 0.1, 0.1, 0.05, 0.05])
    figures.probability_bars(probabilities, label, axes)
    bars = axes.containers[0]
    np.testing.assert_allclose([bar.get_width() for bar in bars], 100 * probabilities)
    assert {to_hex(bar.get_facecolor()).upper() for bar in bars} == {color}
    assert [index for index, bar in enumerate(bars) if bar.get_hatch()] == ([label] if label >= 0 else [])


def test_clip_strip_lays_the_frames_side_by_side(axes) -> None:
    frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 5, 6, 3), np.uint8)
    figures.clip_strip(frames, axes)
    drawn = np.asarray(axes.images[0].get_array())
    assert drawn.shape == (5, 24, 3)
    assert drawn[0, ::6, 0].tolist() == [0, 1, 2, 3]


def write_tested_run(folder: Path, root: Path) -> tuple[Path, pd.DataFrame]:
    """Write a run whose predictions are right but for Sad, which it takes for Fear."""
    arguments = f"{{root: '{root}', fold: 1, frames: 4, size: 32, workers: 0}}"
    write_text(folder / "config.yaml", f"data: {{class_path: dfer_zoo.data.DFEW, init_args: {arguments}}}")
    clips = DFEW(str(root), frames=4, size=32).clips("test")
    said = clips["label"].replace({1: 6}).to_numpy()
    logits = 2.0 * np.eye(7)[said] + 0.01 * np.arange(len(clips))[:, None] * np.eye(7)[said]
    table = pd.DataFrame(logits, columns=list(EMOTIONS))
    table.insert(0, "clip", clips["name"].to_numpy())
    table.insert(1, "label", clips["label"].to_numpy())
    write_text(folder / "evaluations" / "test-best_val.csv", table.to_csv(index=False))
    write_json(folder / "evaluations" / "test-best_val.json", evaluate(table))
    write_json(folder / "cost.json", {})
    return folder, table


def test_gallery_shows_a_clip_of_every_class(tmp_path: Path, dfew_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = write_tested_run(tmp_path / "r3d_18-dfew" / "fold1-seed0", dfew_root)
    drawn = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure) or save(figure, path))
    figures.gallery(run, frames=3)
    picture = cv2.imread(str(run / "gallery.png"))
    assert picture is not None
    assert picture.std() > 10
    strips = drawn[0].axes[::2]
    assert [axes.get_title(loc="left") for axes in strips] == [
        "Sad - model says Fear (wrong)" if name == "Sad" else f"{name} - model says {name} (right)" for name in EMOTIONS
    ]
    for label, axes in enumerate(strips):
        strip = np.asarray(axes.images[0].get_array())
        assert strip.shape == (32, 3 * 32, 3)
        # the fixture writes the class into the red channel
        assert abs(strip[..., 0].mean() - (30 * label + 20)) < 4


def test_gallery_refuses_other_data_under_the_same_root(tmp_path: Path) -> None:
    run, table = write_tested_run(tmp_path / "run", write_dfew(tmp_path / "dfew"))
    table.loc[0, "clip"] = "99999"
    write_text(run / "evaluations" / "test-best_val.csv", table.to_csv(index=False))
    with pytest.raises(InputError, match="not those that"):
        figures.gallery(run)


def test_figures_are_written_whole(tmp_path: Path) -> None:
    figure, _ = figures.new_figure(1, 1, 2, 2)
    path = figures.save(figure, tmp_path / "new" / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["figure.png"]
