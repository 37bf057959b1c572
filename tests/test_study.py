"""The study: its plan, its evidence, its answers, and that README prints no number that the evidence does not give."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from dfer_zoo import stress, study
from dfer_zoo.__main__ import main
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.findings import SHUFFLED, Evidence, contrast, measured, resampled, seed_noise
from dfer_zoo.results import load_run
from dfer_zoo.study import Study

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("checkout", "quick_measurement")]

CHECKOUT = Path(__file__).parents[1]
RESULTS = CHECKOUT / "experiments" / "results"
PLAN = yaml.safe_load((CHECKOUT / "experiments" / "study.yaml").read_text())
QUESTIONS = {question["asks"]: question for question in PLAN["questions"]}


def sides(spec: dict[str, Any]) -> list[str]:
    """The methods of a contrast."""
    return [name for side in ("new", "old") for name in ([spec[side]] if isinstance(spec[side], str) else spec[side])]


def trained(todo: Study) -> dict[tuple[str, str], set[int | None]]:
    """The folds that every method is trained on, by set and method."""
    folds: dict[tuple[str, str], set[int | None]] = {}
    for name, wanted in todo.wanted.items():
        for training in wanted:
            folds.setdefault((name, training.method), set()).add(training.fold)
    return folds


def test_what_is_asked_is_trained() -> None:
    folds = trained(Study(PLAN, Path("study")))
    for question in PLAN["questions"]:
        for spec in question["contrasts"]:
            for method in sides(spec):
                assert len(folds[spec["set"], method]) >= 3, (question["asks"], method)
            if SHUFFLED in (spec.get("new_rule"), spec.get("old_rule")):
                assert spec["set"] == PLAN["shuffled"]["set"]
                assert set(sides(spec)) <= set(PLAN["shuffled"]["methods"])
    asked = {
        (spec["set"], name) for question in PLAN["questions"] for spec in question["contrasts"] for name in sides(spec)
    }
    assert set(folds) == asked, "nothing is trained that nobody asks for"
    assert all(folds["main", method] == {1, 2, 3, 4, 5} for method in PLAN["scores"]["main"])


def test_the_plan_is_made_of_recipes_that_there_are() -> None:
    for method, spec in PLAN["methods"].items():
        assert (CHECKOUT / "experiments" / "model" / f"{spec['model']}.yaml").is_file(), method
    for phase in PLAN["runs"]:
        assert phase["set"] in PLAN["sets"]
        assert set(phase["methods"]) <= set(PLAN["methods"])


def test_a_real_set_takes_the_place_of_the_main_one_with_the_papers_recipes() -> None:
    real = Study(PLAN, Path("out"), "dfew", Path("there"))
    assert real.sets == ["main"]
    for training in real.wanted["main"]:
        assert "experiments/quick.yaml" not in training.words
        assert not any("max_epochs" in word for word in training.words)
        assert training.words[training.words.index("--data.root") + 1] == "there"
    without_folds = Study(PLAN, Path("out"), "ferv39k")
    assert {fold for folds in trained(without_folds).values() for fold in folds} == {None}


def test_the_study_of_a_real_set_from_runs_to_answers(
    pretend: list[str],
    dfew_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def other_rule(runs: list) -> dict[Path, pd.DataFrame]:
        return {run.path: load_run(run.path, "last").predictions for run in runs}

    small = {
        **PLAN,
        "runs": [
            {"set": "main", "folds": "1-2", "methods": ["r3d_18", "m3dfel"]},
            {"set": "main", "folds": "1", "seeds": "1-2", "methods": ["m3dfel"]},
            {"set": "brief", "folds": "1", "methods": ["r3d_18"]},
        ],
    }
    monkeypatch.setattr(study, "read_plan", lambda: small)
    monkeypatch.setattr(study, "shuffle_frames", other_rule)
    words = ["study", "--data", "dfew", "--root", str(dfew_root), "--out", str(tmp_path)]
    assert main(words) == 0
    assert len(pretend) == 6
    assert "m3dfel - r3d_18" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "results" / "findings.csv")
    first = rows[(rows["compared"] == "m3dfel - r3d_18")].iloc[0]

    def share_right(method: str) -> float:
        """The mean over clips of the mean over seeds."""
        right: dict[str, list[bool]] = {}
        for path in (tmp_path / "runs" / "main" / f"{method}-dfew").glob("fold*"):
            table = load_run(path).predictions
            said = table[list(EMOTIONS)].to_numpy().argmax(1)
            for clip, good in zip(table["clip"], said == table["label"], strict=True):
                right.setdefault(clip, []).append(good)
        return float(np.mean([np.mean(seeds) for seeds in right.values()]))

    assert first["war"] == pytest.approx(share_right("m3dfel") - share_right("r3d_18"), abs=1e-5)
    assert first["war_low"] < first["war"] < first["war_high"]
    assert (first["folds"], first["clips"]) == (2, 28)
    shuffled = rows[rows["compared"] == "m3dfel (shuffled) - m3dfel"]
    assert len(shuffled) == 1
    assert (tmp_path / "results" / "configs" / "main" / "m3dfel.yaml").is_file()
    before = (tmp_path / "results" / "findings.md").read_text()
    pretend.clear()
    assert main(words) == 0
    assert pretend == []
    assert (tmp_path / "results" / "findings.md").read_text() == before


def test_the_generated_study_from_nothing_to_answers(
    train_here: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {
        "sets": {
            "shared": {"clips": 35, "size": 32, "frames": [4, 5], "packed": 32, "workers": 1},
            "main": {"seed": 1},
        },
        "quick": {"trainer.max_epochs": 1, "data.workers": 0, "data.size": 32, "data.frames": 4, "model.width": 8},
        "rules": ["last"],
        "methods": {"r3d_18": {"model": "r3d_18"}, "balanced": {"model": "r3d_18", "options": {"data.balanced": True}}},
        "runs": [{"set": "main", "folds": "1", "methods": ["r3d_18", "balanced"]}],
        "scores": {"main": ["r3d_18"]},
        "shuffled": {"set": "main", "methods": ["r3d_18"]},
        "questions": [
            {"asks": "Balanced?", "contrasts": [{"set": "main", "new": "balanced", "old": "r3d_18"}]},
            {"asks": "Time?", "contrasts": [{"set": "main", "new": "r3d_18", "new_rule": SHUFFLED, "old": "r3d_18"}]},
        ],
    }
    monkeypatch.setattr(study, "read_plan", lambda: small)
    assert main(["study", "--out", str(tmp_path)]) == 0
    assert len(train_here) == 2
    evidence = Evidence.read(tmp_path / "results", "main")
    assert len(set(evidence.answers["person"])) > 1, "the generator's people"
    (run,) = (tmp_path / "runs" / "main" / "r3d_18-dfew").iterdir()
    (trial,) = stress.plan([load_run(run)], ["shuffle"], [5], 0)
    table = pd.read_csv(tmp_path / "results" / "findings.csv").set_index("question")
    assert table.loc["Time?", "war"] == pytest.approx(trial.result()["war"] - load_run(run).evaluation["war"], abs=1e-5)
    assert (tmp_path / "results" / "findings.png").stat().st_size > 5000


def test_wrong_words_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "--root", "somewhere"]) == 2
    assert "Name the real dataset" in " ".join(capsys.readouterr().err.split())
    assert main(["study", "--data", "few"]) == 2
    assert "There are: clips, dfew" in " ".join(capsys.readouterr().err.split())
    monkeypatch.chdir(tmp_path)
    assert main(["study"]) == 2
    assert "Start this in the project's checkout" in " ".join(capsys.readouterr().err.split())


def made_up(clips: int = 200, folds: int = 2, seed: int = 0) -> Evidence:
    """Answers of two methods, right in about 60 and 50 of 100 clips; fold 1 of the first with three seeds."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 7, clips)
    answers = pd.DataFrame(
        {"clip": [f"{n:05d}" for n in range(clips)], "label": label, "fold": np.arange(clips) % folds + 1}
    )
    answers["person"] = answers["fold"] + folds * rng.integers(0, 10, clips)
    runs = []
    for method, good, seeds in (("a", 0.6, 3), ("b", 0.5, 1)):
        for number in range(seeds):
            said = np.where(rng.random(clips) < good, label, (label + 1) % 7).astype(float)
            said[(answers["fold"] > 1) & (number > 0)] = np.nan
            answers[Evidence.column(method, "best_val", number)] = said
            for fold in range(1, folds + 1 if number == 0 else 2):
                own = answers["fold"] == fold
                war, uar, _ = measured(np.array([said[own] == label[own]]), label[own])[0]
                runs.append(
                    {"method": method, "fold": fold, "seed": number, "rule": "best_val", "war": war, "uar": uar}
                )
    return Evidence(answers, pd.DataFrame(runs).assign(parameters=1, test_set="x"))


def test_measures_are_those_of_a_plain_count() -> None:
    label = np.array([0, 0, 5, 5, 5, 6, 1])
    right = np.array([1, 0, 1, 1, 0, 1, 1])
    war, uar, tail = measured(right[None], label)[0]
    assert war == pytest.approx(5 / 7)
    assert uar == pytest.approx((1 / 2 + 2 / 3 + 1 + 1) / 4)
    assert tail == pytest.approx((2 / 3 + 1) / 2), "Disgust and Fear"


def test_the_luck_of_training_adds_the_variance_of_independent_trainings() -> None:
    clips = pd.DataFrame({"label": [0, 5, 6] * 40, "fold": [1] * 90 + [2] * 30, "person": range(120)})
    right = np.ones((1, 120))  # drawing people anew changes nothing
    trainings = np.where(clips["fold"] == 1, 3, 1)[None]
    noise = {"war": 0.02, "uar": 0.03, "tail": 0.05}
    samples = resampled(right, clips, trainings, noise)
    share = np.sqrt(0.75**2 / 3 + 0.25**2 / 1)
    assert samples.std(axis=0)[0] == pytest.approx(share * np.array([0.02, 0.03, 0.05]), rel=0.03)
    assert samples.mean(axis=0)[0] == pytest.approx(np.ones(3), abs=0.003)
    assert not resampled(right, clips, trainings, {}).std(axis=0).any()


def test_seed_noise_is_the_pooled_deviation_of_repeated_trainings() -> None:
    evidence = made_up()
    noise, freedom = seed_noise([evidence])
    runs = evidence.runs.query("method == 'a' and fold == 1")
    assert freedom == 2
    assert noise["war"] == pytest.approx(runs["war"].std())
    assert noise["uar"] == pytest.approx(runs["uar"].std())
    assert seed_noise([])[1] == 0


def test_a_contrast_is_paired_on_the_clips_that_both_answered() -> None:
    evidence = made_up(400)
    evidence.answers.loc[evidence.answers["fold"] == 2, "b:best_val:0"] = np.nan
    row = contrast(evidence, {}, {"new": "a", "old": "b"})
    own = evidence.answers[evidence.answers["fold"] == 1]
    right = [
        own[[f"{m}:best_val:{s}" for s in range(n)]].eq(own["label"], axis=0).mean(axis=1)
        for m, n in (("a", 3), ("b", 1))
    ]
    assert row["war"] == pytest.approx(right[0].mean() - right[1].mean())
    assert (row["clips"], row["folds"], row["people"]) == (200, 1, own["person"].nunique())
    wider = contrast(evidence, {"war": 0.05, "uar": 0.05, "tail": 0.05}, {"new": "a", "old": "b"})
    assert wider["war_high"] - wider["war_low"] > 1.5 * (row["war_high"] - row["war_low"])
    itself = contrast(evidence, {"war": 0.05, "uar": 0.05, "tail": 0.05}, {"new": "a", "old": "a"})
    assert (itself["war"], itself["war_low"], itself["war_p"]) == (0, 0, 1)
    with pytest.raises(InputError, match="no answers of c"):
        contrast(evidence, {}, {"new": "c", "old": "a"})


def test_evidence_that_does_not_give_its_scores_is_refused(tmp_path: Path) -> None:
    evidence = made_up()
    evidence.write(tmp_path, "main")
    again = Evidence.read(tmp_path, "main")
    pd.testing.assert_frame_equal(again.answers, evidence.answers, check_dtype=False)
    text = (tmp_path / "answers-main.csv").read_text().splitlines()
    cells = text[1].split(",")
    cells[1] = str((int(cells[1]) + 3) % 7)
    (tmp_path / "answers-main.csv").write_text("\n".join([text[0], ",".join(cells), *text[2:]]))
    with pytest.raises(DataError, match="answered"):
        Evidence.read(tmp_path, "main")
