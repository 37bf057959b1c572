"""The robustness report of a small run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dfer_zoo import runs
from dfer_zoo.__main__ import main
from dfer_zoo.data.corruptions import KINDS, Corruption
from dfer_zoo.models import load
from dfer_zoo.results import load_run
from dfer_zoo.runs import evaluate, load_data
from dfer_zoo.stress import contact_sheet, plan, score_curves

pytestmark = pytest.mark.filterwarnings("ignore")


def files(run: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run / "evaluations" / "stress").glob("*")}


def test_predictions_are_those_of_the_corrupted_clips(own_run: Path, tmp_path: Path) -> None:
    before = (own_run / "evaluations" / "test-best_val.json").read_text()
    out = tmp_path / "out"
    words = ["stress", str(own_run), "--corruptions=noise,reverse", "--strengths=2,4", f"--out={out}"]
    assert main(words) == 0

    table = pd.read_csv(own_run / "evaluations" / "stress" / "best_val-noise=0.2-seed0.csv", dtype={"clip": str})
    data, model = load_data(own_run), load(own_run / "checkpoints" / "best_val.ckpt")
    data.corruption = Corruption("noise", 0.2)
    dataset = data.dataset("test")
    batch = dataset[[(0, index) for index in range(len(dataset))]]
    logits = pd.DataFrame(model(batch.video).logits.detach().numpy(), index=batch.name).sort_index().to_numpy()
    assert table["clip"].tolist() == sorted(batch.name)
    assert np.allclose(table.drop(columns=["clip", "label"]), logits, atol=1e-4)
    rows = pd.read_csv(out / "stress.csv").set_index(["corruption", "strength"])
    assert rows.index.tolist() == [("noise", 2), ("noise", 4), ("reverse", 1)]
    assert rows.loc[("noise", 4), "war"] == evaluate(table)["war"]
    assert rows.loc[("noise", 4), "war_drop"] == pytest.approx(json.loads(before)["war"] - evaluate(table)["war"])
    assert {path.name for path in out.iterdir()} == {"stress.csv", "stress.png", "stress-clip.png"}
    assert (own_run / "evaluations" / "test-best_val.json").read_text() == before
    assert load_run(own_run).evaluation == json.loads(before), "comparisons still see the run's own test"


def test_what_is_done_is_not_repeated(own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["stress", str(own_run), "--corruptions=drop", f"--out={tmp_path / 'out'}"]
    evaluated: list[str] = []
    original = runs.evaluate_checkpoint

    def count(run: Path, model: object, data: object, split: str, name: str, *more: object) -> object:
        evaluated.append(name)
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        return original(run, model, data, split, name, *more)

    monkeypatch.setattr("dfer_zoo.stress.evaluate_checkpoint", count)
    assert main([*words, "--strengths", "1,2"]) == 130
    first = files(own_run)
    assert len(first) == 2  # csv and json of the first strength
    assert main([*words, "--strengths=1-3"]) == 0
    assert [name.split("=")[1] for name in evaluated[1:]] == ["0.3-seed0", "0.3-seed0", "0.5-seed0"]
    assert files(own_run).items() > first.items()
    assert main([*words[:-1], "--strengths=1", "--seed=1"]) == 0
    assert (own_run / "stress" / "stress.csv").is_file(), "without a folder, in the run's own"
    assert evaluated[-1].endswith("seed1")


def test_a_result_of_other_clips_is_made_again(own_run: Path) -> None:
    (trial,) = plan([load_run(own_run)], ["blur"], [3], seed=0)
    path = own_run / "evaluations" / f"{trial.name}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**trial.run.evaluation, "test_set": "another"}))
    assert trial.result() is None
    path.write_text(json.dumps(trial.run.evaluation))
    assert trial.result() == trial.run.evaluation


def test_figures_show_every_corruption(trained_run: Path) -> None:
    run = load_run(trained_run)
    rows = pd.DataFrame(
        {"run": run.name, "corruption": kind, "strength": strength, "level": level, "war": 0.5 / strength}
        for kind in KINDS
        for strength, level in enumerate(KINDS[kind].levels, start=1)
    )
    curves = score_curves(rows, [run])
    drawn = {axes.get_title(): axes.get_lines()[-1] for axes in curves.axes if axes.axison}
    assert list(drawn) == list(KINDS)
    assert drawn["blur"].get_ydata().tolist() == pytest.approx([100 * run.evaluation["war"], 50, 25, 50 / 3, 12.5, 10])
    sheet = contact_sheet(load_data(trained_run).dataset("test"), list(KINDS))
    pictures = [axes for axes in sheet.axes if axes.images]
    assert len(pictures) == sum(1 + len(kind.levels) for kind in KINDS.values())
    titles = {axes.get_title(loc="left") for axes in pictures}
    assert "-1: frames 8 7 6 5 4 3 2 1" in titles


def test_runs_of_different_clips_are_refused(own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = shutil.copytree(own_run, tmp_path / "other" / "fold2-seed0")
    path = other / "evaluations" / "test-best_val.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_set": "another"}))
    assert main(["stress", str(own_run), str(other)]) == 2
    assert "tested on other clips" in " ".join(capsys.readouterr().err.split())


def test_clips_that_were_changed_since_the_test_are_refused(own_run: Path, capsys: pytest.CaptureFixture) -> None:
    path = own_run / "evaluations" / "test-best_val.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_set": "another"}))
    assert main(["stress", str(own_run), "--corruptions=reverse"]) == 2
    assert "are not those that it was tested on" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--corruptions=rain"], "There is no corruption 'rain'. There are: darkness, blur"),
        (["--strengths=0"], "--strengths is '0'; allowed: numbers from 1 to 5"),
        (["--strengths=mild"], "--strengths is 'mild'; write numbers and rising ranges, such as 1-5 or 1,3."),
    ],
)
def test_wrong_words(words: list[str], said: str, trained_run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["stress", str(trained_run), *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_no_run(capsys: pytest.CaptureFixture) -> None:
    assert main(["stress"]) == 2
    assert "No runs given" in " ".join(capsys.readouterr().err.split())
