"""Temperature scaling and reliability, against slow references and a run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dfer_zoo.__main__ import main
from dfer_zoo.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    reliability_diagram,
    scores,
    temperature_of,
    temperature_p_value,
)
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError
from dfer_zoo.results import prediction_table, softmax

pytestmark = pytest.mark.filterwarnings("ignore")


def sample(clips: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits ``(n, 7)`` and labels drawn from their softmax at a temperature: the right one."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(clips, 7)) * 3
    chances = softmax(logits / temperature)
    return logits, (chances.cumsum(1) < rng.random((clips, 1))).sum(1).clip(0, 6)


def table_of(logits: np.ndarray, label: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(logits, columns=list(EMOTIONS))
    table.insert(0, "clip", [f"{i:05d}" for i in range(len(label))])
    table.insert(1, "label", label)
    return table


def test_likelihood_is_the_cross_entropy() -> None:
    logits, label = sample(50, 2.0)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits) / 1.7, torch.tensor(label)).item()
    assert negative_log_likelihood(logits, label, 1.7) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_drew_the_labels_is_found(temperature: float) -> None:
    assert fit_temperature(*sample(20_000, temperature)) == pytest.approx(temperature, rel=0.05)


@given(seed=st.integers(0, 10_000), clips=st.integers(60, 200), temperature=st.floats(0.3, 3))
@settings(max_examples=25, deadline=None)
def test_no_other_temperature_is_likelier(seed: int, clips: int, temperature: float) -> None:
    logits, label = sample(clips, temperature, seed)
    fitted = fit_temperature(logits, label)
    best = negative_log_likelihood(logits, label, fitted)
    for other in np.geomspace(0.01, 100, 61):
        assert best <= negative_log_likelihood(logits, label, other) + 1e-6


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_a_temperature_changes_neither_war_nor_uar(seed: int, temperature: float) -> None:
    table = table_of(*sample(40, 1.0, seed))
    before, after = scores(table, 1.0), scores(table, temperature)
    assert (before["war"], before["uar"], before["set"]) == (after["war"], after["uar"], after["set"])


@given(seed=st.integers(0, 10_000), clips=st.integers(1, 120), bins=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_bins_add_up_to_torchmetrics_error(seed: int, clips: int, bins: int) -> None:
    """Two ways to the same number: a loop over bins, and torchmetrics."""
    logits, label = sample(clips, 2.0, seed)
    probabilities = softmax(logits)
    rows = reliability(probabilities, label, bins)
    assert rows["clips"].sum() == clips
    confidence, right = probabilities.max(1), probabilities.argmax(1) == label
    for row in rows.itertuples():
        inside = (confidence >= row.low) & (confidence < row.high) | (row.high == 1) & (confidence == 1)
        assert inside.sum() == row.clips
        assert confidence[inside].mean() == pytest.approx(row.confidence)
        assert right[inside].mean() == pytest.approx(row.accuracy)
    error = (rows["clips"] / clips * (rows["confidence"] - rows["accuracy"]).abs()).sum()
    assert expected_calibration_error(probabilities, label, bins) == pytest.approx(error, abs=1e-5)


def test_honest_probabilities_have_no_error_and_exaggerated_ones_have() -> None:
    logits, label = sample(20_000, 2.0)
    assert expected_calibration_error(softmax(logits / 2), label) < 0.02
    assert expected_calibration_error(softmax(logits), label) > 0.1


def test_diagram_shows_every_bin_and_its_gap() -> None:
    logits, label = sample(300, 2.0)
    rows = reliability(softmax(logits), label, 10)
    axes = Figure().subplots()
    reliability_diagram(rows, axes, "before")
    accuracy, gap = axes.containers
    assert [bar.get_height() for bar in accuracy] == pytest.approx((100 * rows["accuracy"]).tolist())
    tops = [bar.get_y() + bar.get_height() for bar in gap]
    assert tops == pytest.approx((100 * rows["confidence"]).tolist())
    assert [text.get_text() for text in axes.texts] == [str(clips) for clips in rows["clips"]]


def test_calibrate_evaluates_what_is_missing_and_writes_what_it_found(own_run: Path, dfew_root: Path) -> None:
    before = (own_run / "evaluations" / "test-best_val.csv").read_text()
    assert main(["calibrate", str(own_run), "--bins=10"]) == 0
    content = json.loads((own_run / "calibration.json").read_text())
    val = pd.read_csv(own_run / "evaluations" / "val-best_val.csv", dtype={"clip": str})
    logits = val[list(EMOTIONS)].to_numpy()
    assert content["likeliest"] == pytest.approx(fit_temperature(logits, val["label"].to_numpy()))
    assert content["temperature"] == (content["likeliest"] if content["p_of_1"] < 0.05 else 1)
    assert content["val"]["after"]["nll"] <= content["val"]["before"]["nll"]
    assert content["test"]["after"]["war"] == content["test"]["before"]["war"]
    assert content["bins"] == 10
    assert (own_run / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert (own_run / "evaluations" / "test-best_val.csv").read_text() == before


def test_the_test_against_temperature_1_refuses_it_as_often_as_it_says() -> None:
    """Labels drawn at temperature 1: p-values are uniform, so that a twentieth is below 0.05."""
    found = []
    for seed in range(400):
        logits, label = sample(80, 1.0, seed)
        found.append(temperature_p_value(logits, label, fit_temperature(logits, label)))
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09
    assert 0.42 < np.mean(np.array(found) < 0.5) < 0.58
    logits, label = sample(80, 3.0)
    assert temperature_p_value(logits, label, fit_temperature(logits, label)) < 0.001


def test_a_temperature_that_few_clips_do_not_tell_from_1_stays_1(
    own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits, label = sample(30, 1.0)
    table_of(logits, label).to_csv(own_run / "evaluations" / "val-best_val.csv", index=False)
    assert main(["calibrate", str(own_run)]) == 0
    content = json.loads((own_run / "calibration.json").read_text())
    assert content["temperature"] == 1
    assert content["likeliest"] != 1
    assert content["test"]["after"] == content["test"]["before"]
    said = " ".join(capsys.readouterr().out.split())
    assert f"They do not tell the likeliest, {content['likeliest']:.3f}, from 1: it stays 1" in said


def test_validation_clips_are_not_evaluated_twice(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, label = sample(60, 3.0)
    table_of(logits, label).to_csv(own_run / "evaluations" / "val-best_val.csv", index=False)
    monkeypatch.setattr("dfer_zoo.calibration.evaluate_checkpoint", None)
    assert main(["calibrate", str(own_run)]) == 0
    assert temperature_of(own_run / "checkpoints" / "best_val.ckpt") == pytest.approx(fit_temperature(logits, label))
    assert temperature_of(own_run / "checkpoints" / "last.ckpt") == 1, "fitted to another checkpoint"


@pytest.mark.parametrize(("sign", "said"), [(1, "All 14 validation clips are right"), (-1, "100 or more")])
def test_clips_that_determine_no_temperature_are_refused(
    sign: int, said: str, own_run: Path, capsys: pytest.CaptureFixture
) -> None:
    label = np.arange(14) % 7
    table_of(sign * 5 * np.eye(7)[label], label).to_csv(own_run / "evaluations" / "val-best_val.csv", index=False)
    assert main(["calibrate", str(own_run)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (own_run / "calibration.json").exists()


def test_predictions_are_shown_at_the_temperature() -> None:
    table = table_of(np.array([[2.0, 0, 0, 0, 0, 0, 0]]), np.array([-1]))
    shown = prediction_table(table, temperature=2.0)
    assert "temperature 2.00" in shown.title
    assert next(iter(shown.columns[2].cells)) == f"{100 * softmax(np.array([[1.0, 0, 0, 0, 0, 0, 0]]))[0, 0]:.0f}"
    assert "temperature" not in prediction_table(table).title


def test_wrong_words(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["calibrate", str(trained_run), "--bins=0"]) == 2
    assert "bins is 0; allowed: 1 or more" in " ".join(capsys.readouterr().err.split())
    assert main(["calibrate", str(tmp_path)]) == 2
    assert "is no run folder" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("content", ["", "clip,emotion,Joy,Sad\nx,0,1,2\n"])
def test_validation_predictions_that_cannot_be_read(
    content: str, own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_run / "evaluations" / "val-best_val.csv").write_text(content)
    assert main(["calibrate", str(own_run)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "val-best_val.csv" in said
    assert f"Delete it: `dfer-zoo calibrate {own_run}` writes it again." in said
    (own_run / "calibration.json").write_text("{}")
    with pytest.raises(DataError, match=r"calibration.json has no temperature.*`dfer-zoo calibrate"):
        temperature_of(own_run / "checkpoints" / "best_val.ckpt")
