"""Figures of arrays: the numbers drawn are those given."""

from itertools import combinations, pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import write_dfew
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_hex, to_rgb
from sklearn.metrics import confusion_matrix as reference_confusion
from sklearn.metrics import pairwise_distances
from test_results import write_run

from dfer_zoo import figures
from dfer_zoo.__main__ import main
from dfer_zoo.data import DFEW
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import InputError
from dfer_zoo.figures import clips, curves, features, instances
from dfer_zoo.figures.style import RUN_MARKERS
from dfer_zoo.figures.trained import median_clips
from dfer_zoo.results import Run, load_run, softmax
from dfer_zoo.runs import evaluate, write_json, write_text


@pytest.fixture
def axes():
    return figures.new_figure(1, 1, 4, 4)[1][0, 0]


def lightness(color) -> float:
    """CIE L* of an sRGB colour, 0..100."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return float(116 * np.cbrt(y) - 16 if y > 0.008856 else 903.3 * y)


def test_every_emotion_has_its_own_marker_and_lightness() -> None:
    assert list(figures.CLASS_COLORS) == list(figures.CLASS_MARKERS) == list(EMOTIONS)
    assert len(set(figures.CLASS_MARKERS.values())) == len(EMOTIONS)
    for first, second in combinations(figures.CLASS_COLORS.values(), 2):
        assert abs(lightness(first) - lightness(second)) > 2


def test_runs_differ_in_lightness_and_line() -> None:
    lines = figures.run_lines(20)
    assert len({(line["linestyle"], line["marker"]) for line in lines}) == 20
    assert len(RUN_MARKERS) == 5
    shades = [lightness(color[:3]) for color in figures.run_colors(5)]
    assert all(darker + 5 < lighter for darker, lighter in pairwise(shades))


def test_confusion_matrix_is_in_percent_of_each_true_class(axes) -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 1, 5]])
    figures.confusion_matrix(confusion, axes, "title", ("Happy", "Sad", "Fear"))
    drawn = {text.get_position(): text.get_text() for text in axes.texts}
    expected = [["75", "25", "0"], ["–", "–", "–"], ["25", "12", "62"]]
    assert [[drawn[column, row] for column in range(3)] for row in range(3)] == expected
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Happy (4)", "Sad (0)", "Fear (8)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Happy", "Sad", "Fear"]
    np.testing.assert_allclose(axes.images[0].get_array()[0], [75, 25, 0])


def test_confusion_matrices_are_those_of_scikit_learn() -> None:
    label, said = np.random.default_rng(0).integers(7, size=(2, 90))
    table = pd.DataFrame(np.eye(7)[said], columns=list(EMOTIONS)).assign(clip=range(90), label=label)
    confusion = np.array(evaluate(table)["confusion"])
    figure = figures.confusion_matrices({"a": confusion, "b": confusion.T, "c": confusion})
    drawn = [np.asarray(place.images[0].get_array()) for place in figure.axes]
    np.testing.assert_allclose(drawn[0], 100 * reference_confusion(label, said, normalize="true"))
    np.testing.assert_allclose(drawn[1], 100 * reference_confusion(said, label, normalize="true"))
    assert [place.get_title() for place in figure.axes] == ["a", "b", "c"]
    assert figure.axes[1].get_ylabel() == "true (clips)"  # its counts are others than those of the first


def test_equal_counts_are_written_once() -> None:
    figure = figures.confusion_matrices({"a": np.eye(7), "b": np.eye(7)})
    assert [place.get_ylabel() for place in figure.axes] == ["true (clips)", ""]


def test_recall_bars_have_the_recalls_heights(axes) -> None:
    recalls = {"a": {"Happy": 0.5, "Sad": None}, "b": {"Happy": 0.25, "Sad": 1.0}}
    figures.recall_bars(recalls, axes)
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    np.testing.assert_equal(heights, [[50, np.nan], [25, 100]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    bars = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for group in axes.containers for bar in group)
    assert all(left_end <= start + 1e-9 for (_, left_end), (start, _) in pairwise(bars))


def run(path: str) -> Run:
    return Run(Path(path), {}, {})


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/hdf-dfew/fold1-seed0"], ["hdf-dfew/fold1-seed0"]),
        (["r/a-dfew/f", "r/b-dfew/f"], ["a", "b"]),
        (["r/a-dfew/f", "r/a-ferv39k/f"], ["a-dfew", "a-ferv39k"]),
        (["r/a-dfew/f", "r/b-dfew/g"], ["a-dfew/f", "b-dfew/g"]),
        (["q/a-dfew/f", "r/a-dfew/f"], ["q/a-dfew/f", "r/a-dfew/f"]),
        (["r/a/f", "r/b/f"], ["a", "b"]),
    ],
)
def test_labels_leave_out_what_all_runs_share(paths: list[str], expected: list[str]) -> None:
    assert figures.labels([run(path) for path in paths]) == expected


def test_class_distribution_is_in_percent_of_each_split() -> None:
    figure = figures.class_distribution({"DFEW": {"train": [6, 2], "test": [1, 0]}}, ("Happy", "Sad"))
    groups = figure.axes[0].containers
    heights = [[bar.get_height() for bar in group] for group in groups]
    assert heights == [[75, 25], [100, 0]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["6", "2", "1", "0"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "train (8 clips)",
        "test (1 clips)",
    ]


def history(war: list[float], **terms: list[float]) -> pd.DataFrame:
    """A metrics.csv of four steps an epoch: terms after the second and the fourth, WAR after the fourth."""
    rows = []
    for epoch, value in enumerate(war):
        for half in (0, 1):
            logged = {f"train_{name}": values[2 * epoch + half] for name, values in terms.items()}
            rows.append({"step": 4 * epoch + 2 * half + 1, "epoch": epoch, "lr-AdamW": 0.1 / (epoch + 1), **logged})
        rows.append({"step": 4 * epoch + 3, "epoch": epoch, "val_war": value, "val_uar": value / 2})
    rows.append({"step": 4 * len(war), "epoch": len(war), "test_war": 0.1})
    return pd.DataFrame(rows)


def test_epochs_are_fractions_of_the_training() -> None:
    table = history([0.1, 0.2], ce=[4.0, 3, 2, 1])
    assert curves.epochs(table).tolist() == [0.5, 1.0, 1.0, 1.5, 2.0, 2.0, 2.25]


def test_the_chosen_checkpoint_is_the_first_of_the_best() -> None:
    table = history([0.1, 0.3, 0.3, 0.2], ce=[1.0] * 8)
    assert table["epoch"][curves.chosen_row(table)] == 1
    assert curves.chosen_row(table.drop(columns=["val_war", "val_uar"])) is None


def test_training_curves_show_every_run_and_term() -> None:
    first, second = history([0.1, 0.4, 0.2], ce=[6.0, 4, 3, 2, 1, 0]), history([0.2, 0.1], ce=[1.0] * 4, mine=[7.0] * 4)
    figure = figures.training_curves({"a": first, "b": second})
    by_title = {place.get_title(): place for place in figure.axes}
    war = by_title["validation WAR, percent"]
    assert [line.get_ydata().tolist() for line in war.lines] == [[10, 40, 20], [40], [20, 10], [20]]
    assert [line.get_xdata().tolist() for line in war.lines] == [[1, 2, 3], [2], [1, 2], [1]]
    assert [line.get_marker() for line in war.lines][1::2] == ["*", "*"]
    entropy = by_title["cross entropy, nats"]
    assert [line.get_ydata().tolist() for line in entropy.lines] == [[6, 4, 3, 2, 1, 0], [5, 2.5, 0.5], [1] * 4, [1, 1]]
    assert entropy.lines[1].get_xdata().tolist() == [0.5, 1.5, 2.5]
    assert len(by_title["mine"].lines) == 2
    assert by_title["learning rate"].lines[0].get_ydata().tolist() == pytest.approx(
        [0.1, 0.1, 0.05, 0.05, 0.1 / 3, 0.1 / 3]
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "chosen checkpoint"]


def test_a_history_without_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metrics\.csv"):
        figures.read_history(tmp_path)
    write_text(tmp_path / "metrics.csv", "step,epoch,val_war\n3,0,0.5\n")
    with pytest.raises(InputError, match="no training loss"):
        figures.read_history(tmp_path)


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of 12 points in 6 dimensions, and their ids."""
    rng = np.random.default_rng(0)
    ids = np.repeat([0, 2, 5], 12)
    return rng.normal(size=(36, 6)) + 3 * np.eye(6)[ids], ids


def test_separation_is_that_of_a_slow_count(clouds: tuple[np.ndarray, np.ndarray]) -> None:
    values, ids = clouds
    distances = pairwise_distances(values)
    shares, silhouettes = [], []
    for i in range(len(ids)):
        others = sorted((distances[i, j], j) for j in range(len(ids)) if j != i)
        shares.append(np.mean([ids[j] == ids[i] for _, j in others[:5]]))
        means = {c: np.mean([distances[i, j] for j in range(len(ids)) if j != i and ids[j] == c]) for c in (0, 2, 5)}
        own, nearest = means.pop(ids[i]), min(means.values())
        silhouettes.append((nearest - own) / max(nearest, own))
    found = figures.separation(values, ids)
    assert found == pytest.approx((np.mean(shares), np.mean(silhouettes)))
    assert features.chance(ids) == pytest.approx(11 / 35)


def test_tsne_draws_every_clip_in_its_class_look(clouds: tuple[np.ndarray, np.ndarray]) -> None:
    values, ids = clouds
    figure = figures.tsne({"a": values, "noise": values[:, ::-1] ** 2}, ids)
    plane = figures.embed(values)
    np.testing.assert_array_equal(plane, figures.embed(values))
    first, second = figure.axes
    for points, label in zip(first.collections, (0, 2, 5), strict=True):
        np.testing.assert_allclose(points.get_offsets(), plane[ids == label])
        assert to_hex(points.get_facecolor()[0]).upper() == figures.CLASS_COLORS[EMOTIONS[label]]
    found = figures.separation(values, ids)
    assert f"{100 * found.neighbours:.0f} %, silhouette {found.silhouette:.2f}" in first.get_title()
    assert second.get_title().startswith("noise")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Happy", "Neutral", "Disgust"]
    with pytest.raises(InputError, match="too few"):
        figures.tsne({"a": values[:8]}, ids[:8])


@given(arrays(float, (4, 7), elements=st.floats(-9, 9)))
def test_evidence_of_instances_averages_to_the_clips(logits: np.ndarray) -> None:
    clip = logits.mean(0)
    assert instances.said_evidence(logits).mean() == pytest.approx(clip.max() - clip.mean(), abs=1e-9)


def test_instance_table_shows_frames_probabilities_and_weights() -> None:
    rng = np.random.default_rng(1)
    frames = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 6, 3), np.uint8)
    logits, weights = rng.normal(size=(2, 7)), np.array([0.25, 1.75])
    figure = figures.instance_tables([figures.Bag(frames, logits, "title", weights)])
    place = figure.axes[0]
    assert [int(image.get_array()[0, 0, 0]) for image in place.images] == list(range(8))
    assert [text.get_text() for text in place.get_yticklabels()] == [*EMOTIONS, "evidence", "weight w"]
    shares = 100 * softmax(np.vstack([logits, logits.mean(0)]))
    texts = [text.get_text() for text in place.texts]
    assert texts[:21] == [f"{share:.0f}" for share in shares.ravel()]
    evidence = instances.said_evidence(logits)
    assert texts[21:] == [f"{value:+.1f}" for value in (*evidence, evidence.mean())] + ["0.25", "1.75"]


def evidence(maps: np.ndarray) -> figures.Evidence:
    return figures.Evidence(maps, np.full((*maps.shape, 3), 90, np.uint8), "says")


def test_heat_strips_are_shares_of_the_clips_maximum() -> None:
    maps = np.zeros((3, 8, 8))
    maps[1, 2:6, 2:6], maps[2, 0, 0] = 4.0, 1.0
    figure = figures.heat_maps({"clip": [evidence(maps), evidence(0 * maps)]})
    clip, heat, nothing = figure.axes[:3]
    assert clip.get_title(loc="left") == "clip"
    share = np.ma.filled(heat.images[1].get_array(), np.nan)
    assert share.shape == (8, 3 * 8 + 2 * 2)
    np.testing.assert_array_equal(share[:, :8], 0)
    assert np.isnan(share[:, 8:10]).all()
    np.testing.assert_array_equal(share[:, 10:18], maps[1] / 4)
    assert share[0, 20] == 0.25
    assert len(heat.collections) == 1
    assert not nothing.collections  # no line around half of nothing
    assert np.ma.filled(nothing.images[1].get_array(), 0).max() == 0


def test_interactions_show_the_graph_and_the_weights() -> None:
    adjacency = np.array([[0.9, 0.1], [0.4, 0.6]])
    weights, ids = np.array([[0.5, 1.5], [1.5, 0.5], [0.1, 1.9]]), np.array([0, 0, 6])
    whole, parts = figures.Interaction(adjacency, 0.5, weights, ids), figures.Interaction(None, None, weights, ids)
    figure = figures.interactions({"a": whole, "b": parts})
    graph, boxes, hidden, _ = figure.axes
    assert [text.get_text() for text in graph.texts] == ["0.90", "0.10", "0.40", "0.60"]
    means = [line.get_ydata().tolist() for line in boxes.lines if line.get_marker() in figures.CLASS_MARKERS.values()]
    assert means == [[1.0, 1.0], [0.1, 1.9]]
    assert not hidden.axison


def test_landscapes_share_one_scale_and_mark_the_trained_weights() -> None:
    axis = np.linspace(-1, 1, 5)
    bowl = 0.5 + axis[:, None] ** 2 + 2 * axis**2
    steep = 40 * bowl
    steep[0, 0] = np.inf
    figure = figures.landscapes({"flat": bowl, "steep": steep}, radius=1, clips=3)
    flat, other, bar = figure.axes
    assert [place.get_title() for place in (flat, other)] == [
        "flat\nloss at the star 0.50",
        "steep\nloss at the star 20.00",
    ]
    assert flat.collections[0].norm.vmax == other.collections[0].norm.vmax
    assert [line.get_xydata().tolist() for line in flat.lines] == [[[0, 0]]]
    assert bar.get_ylabel() == "cross entropy, nats"
    for path in flat.collections[2].get_paths():  # the dashed line: where guessing would be
        x, y = path.vertices.T
        np.testing.assert_allclose(0.5 + y**2 + 2 * x**2, np.log(7), rtol=0.1)


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


def test_median_clips_are_neither_the_best_nor_the_worst(tmp_path: Path, dfew_root: Path) -> None:
    folder, table = write_tested_run(tmp_path / "r3d_18-dfew" / "fold1-seed0", dfew_root)
    found = median_clips(load_run(folder), 3)
    labels = table.set_index("clip")["label"]
    assert labels[found].tolist() == [0, 3, 6]
    for clip, label in zip(found, (0, 3, 6), strict=True):
        rows = table[table["label"] == label]
        share = pd.Series(softmax(rows[list(EMOTIONS)].to_numpy())[:, label], index=rows["clip"])
        assert (share < share[clip]).sum() == len(rows) // 2


def test_gallery_shows_a_clip_of_every_class(tmp_path: Path, dfew_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = write_tested_run(tmp_path / "r3d_18-dfew" / "fold1-seed0", dfew_root)
    drawn = []
    save = figures.save
    monkeypatch.setattr(clips, "save", lambda figure, path: drawn.append(figure) or save(figure, path))
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


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figures_are_written_whole_and_the_same_each_time(tmp_path: Path, suffix: str, start: bytes) -> None:
    written = []
    for folder in ("one", "two"):
        figure = figures.confusion_matrices({"a": np.eye(7)})
        path = figures.save(figure, tmp_path / folder / f"figure.{suffix}")
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        written.append(path.read_bytes())
    assert written[0].startswith(start)
    assert written[0] == written[1]


def test_a_figure_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/figure.png could not be written.*--out"):
        figures.save(figures.new_figure(1, 1, 1, 1)[0], tmp_path / "file" / "figure.png")


def test_figures_of_several_runs_leave_those_of_a_comparison_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [str(write_run(Path("runs"), method)) for method in ("r3d_18", "hdf")]
    assert main(["figures", *paths, "--only", "confusion,recalls"]) == 0
    assert sorted(path.name for path in Path("runs/figures").iterdir()) == ["confusion.png", "recalls.png"]
    assert not Path("runs/comparison").exists()
