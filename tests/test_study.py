"""The study: its plan, its evidence, its answers, and that README prints no number that the evidence does not give."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml
from rich.console import Console

from dfer_zoo import findings, stress, study
from dfer_zoo.__main__ import main
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.findings import SHUFFLED, Evidence, answer, contrast, measured
from dfer_zoo.report import points
from dfer_zoo.results import Run, load_run
from dfer_zoo.study import Study, on_real_data

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
    real = Study(on_real_data(PLAN), Path("out"), "dfew", Path("there"))
    assert real.sets == ["main"]
    for training in real.wanted["main"]:
        assert "experiments/quick.yaml" not in training.words
        assert not any("max_epochs" in word for word in training.words)
        assert training.words[training.words.index("--data.root") + 1] == "there"
        assert training.method not in ("m3dfel_long", "m3dfel_16")
    asked = {
        name for question in on_real_data(PLAN)["questions"] for spec in question["contrasts"] for name in sides(spec)
    }
    assert {training.method for training in real.wanted["main"]} == asked
    sizes = next(one for one in on_real_data(PLAN)["questions"] if one["asks"] == "Which bag size?")["contrasts"]
    assert [(spec["new"], spec["old"]) for spec in sizes] == [
        ("r3d_18", "m3dfel"),
        ("m3dfel_16_2", "m3dfel"),
        ("m3dfel_16_8", "m3dfel"),
    ]
    without_folds = Study(on_real_data(PLAN), Path("out"), "ferv39k")
    assert {fold for folds in trained(without_folds).values() for fold in folds} == {None}


def test_the_study_of_a_real_set_from_runs_to_answers(
    pretend: list[str],
    dfew_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def other_rule(run: Run) -> pd.DataFrame:
        return load_run(run.path, "last").predictions

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
        """The mean over clips, and so over folds of one size, of the only seed that both methods have."""
        tables = [
            load_run(path).predictions for path in (tmp_path / "runs" / "main" / f"{method}-dfew").glob("fold*-seed0")
        ]
        right = [table[list(EMOTIONS)].to_numpy().argmax(1) == table["label"] for table in tables]
        return float(np.concatenate(right).mean())

    assert first["war"] == pytest.approx(share_right("m3dfel") - share_right("r3d_18"), abs=1e-5)
    assert first["war_low"] <= first["war"] <= first["war_high"]
    assert first["folds"] == 2
    assert "fold 1, m3dfel with other seeds" in (tmp_path / "results" / "findings.md").read_text()
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
    assert evidence.answers["fold"].tolist() == [1] * 7
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
    fold = np.arange(clips) % folds + 1
    answers = pd.DataFrame({"clip": [f"{n:05d}" for n in range(clips)], "label": label, "fold": fold})
    runs = []
    for method, good, seeds in (("a", 0.6, 3), ("b", 0.5, 1)):
        for number in range(seeds):
            said = np.where(rng.random(clips) < good, label, (label + 1) % 7).astype(float)
            said[(fold > 1) & (number > 0)] = np.nan
            answers[Evidence.column(method, "best_val", number)] = said
            for one in range(1, folds + 1 if number == 0 else 2):
                own = fold == one
                scores = measured(pd.Series(said[own]), pd.Series(label[own]))[["war", "uar"]]
                runs.append({"method": method, "fold": one, "seed": number, "rule": "best_val", **scores})
    return Evidence(answers, pd.DataFrame(runs).assign(parameters=1, test_set="x", train_clips=clips - clips // folds))


def test_measures_are_those_of_a_plain_count() -> None:
    label = pd.Series([0, 0, 5, 5, 5, 6, 1])
    said = label.where(pd.Series([1, 0, 1, 1, 0, 1, 1]).astype(bool), 2)
    counted = measured(said, label)
    assert counted[["war", "uar", "tail"]].tolist() == pytest.approx(
        [5 / 7, (1 / 2 + 2 / 3 + 1 + 1) / 4, (2 / 3 + 1) / 2]
    )
    assert counted[["Happy", "Disgust", "Fear"]].tolist() == pytest.approx([1 / 2, 2 / 3, 1])
    assert np.isnan(measured(said[:2], label[:2])["tail"]), "neither Disgust nor Fear"


def share_right(evidence: Evidence, column: str, fold: int) -> float:
    own = evidence.answers[evidence.answers["fold"] == fold]
    return float((own[column] == own["label"]).mean())


def test_a_contrast_is_students_t_over_the_folds_widened_for_what_they_share() -> None:
    evidence = made_up(600, folds=5)
    row = contrast(evidence, {"new": "a", "old": "b"})
    differences = [
        share_right(evidence, "a:best_val:0", fold) - share_right(evidence, "b:best_val:0", fold)
        for fold in range(1, 6)
    ]
    assert row["folds"] == 5
    assert row["war"] == pytest.approx(np.mean(differences)), "seeds that one side alone has do not count"
    plain = scipy.stats.ttest_1samp(differences, 0)
    wider = ((1 / 5 + 120 / 480) / (1 / 5)) ** 0.5
    interval = plain.confidence_interval(0.95)
    assert row["war_high"] - row["war_low"] == pytest.approx(wider * (interval.high - interval.low))
    assert row["war_p"] == pytest.approx(2 * scipy.stats.t.sf(plain.statistic / wider, 4))


def test_where_there_is_one_split_seeds_are_the_replicates() -> None:
    evidence = made_up(400)
    for seed in (1, 2):
        evidence.answers[f"b:best_val:{seed}"] = evidence.answers["b:best_val:0"].where(evidence.answers["fold"] == 1)
    evidence.answers.loc[evidence.answers["fold"] == 2, "b:best_val:0"] = np.nan
    row = contrast(evidence, {"new": "a", "old": "b"})
    differences = [
        share_right(evidence, f"a:best_val:{seed}", 1) - share_right(evidence, f"b:best_val:{seed}", 1)
        for seed in range(3)
    ]
    interval = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert row["folds"] == 1
    assert (row["war_low"], row["war_high"]) == pytest.approx((interval.low, interval.high))


def test_only_what_both_were_trained_on_counts() -> None:
    evidence = made_up(400)
    evidence.answers.loc[evidence.answers["fold"] == 2, "b:best_val:0"] = np.nan
    row = contrast(evidence, {"new": "a", "old": "b"})
    assert row["folds"] == 1
    assert np.isnan(row["war_low"]), "one training says nothing of how sure it is"
    itself = contrast(evidence, {"new": "a", "old": "a"})
    assert (itself["war"], itself["war_low"], itself["war_p"]) == (0, 0, 1)
    both = contrast(evidence, {"new": ["a", "b"], "old": "b"})
    assert both["war"] == pytest.approx(row["war"] / 2)
    with pytest.raises(InputError, match="no answers of c"):
        contrast(evidence, {"new": "c", "old": "a"})


def test_recalls_and_scores_of_the_table_are_of_the_same_trainings() -> None:
    evidence = made_up(700, folds=5)
    table = findings.score_table(["a", "b", "c"], evidence).set_index("method")
    assert table.index.tolist() == ["a", "b"]
    for method, row in table.iterrows():
        assert row["war"] == pytest.approx(
            np.mean([share_right(evidence, f"{method}:best_val:0", fold) for fold in range(1, 6)])
        )
        assert row[list(EMOTIONS)].astype(float).mean() == pytest.approx(row["uar"])


def test_what_was_not_trained_is_left_out_of_an_answer() -> None:
    specs = [{"set": "main", "new": "a", "old": "b"}, {"set": "main", "new": "c", "old": "b"}, {"set": "x", "new": "a"}]
    table = answer({"contrasts": specs}, {"main": made_up(3000, folds=5)})
    assert table["compared"].tolist() == ["a - b"]
    assert table["verdict"].tolist() == ["WAR up"]


def test_trainings_with_other_seeds_are_told() -> None:
    evidence = made_up()
    (row,) = evidence.seeds().to_dict("records")
    war = evidence.runs.query("method == 'a' and fold == 1")["war"]
    assert (row["method"], row["fold"], row["war"]) == ("a", 1, war.tolist())
    assert row["sd"] == pytest.approx(war.std())


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


def test_committed_answers_follow_from_the_committed_evidence() -> None:
    evidence = {
        path.stem.removeprefix("answers-"): Evidence.read(RESULTS, path.stem.removeprefix("answers-"))
        for path in sorted(RESULTS.glob("answers-*.csv"))
    }
    assert set(evidence) == set(PLAN["sets"]) - {"shared"}
    committed = pd.read_csv(RESULTS / "findings.csv")
    for asks, question in QUESTIONS.items():
        table = answer(question, evidence)
        assert len(table) == len(question["contrasts"]), "all of it was trained"
        kept = committed[committed["question"] == asks].reset_index(drop=True)
        assert kept["compared"].tolist() == table["compared"].tolist()
        assert kept["verdict"].tolist() == table["verdict"].tolist()
        for measure in findings.MEASURES:
            for column in (measure, f"{measure}_low", f"{measure}_high"):
                np.testing.assert_allclose(kept[column], table[column], atol=1e-5)
    configs = {
        path.relative_to(RESULTS / "configs").with_suffix("").as_posix() for path in RESULTS.glob("configs/*/*.yaml")
    }
    assert configs == {f"{name}/{method}" for name, one in evidence.items() for method in one.runs["method"].unique()}


def test_committed_tables_are_those_of_the_committed_evidence(tmp_path: Path) -> None:
    evidence = {name: Evidence.read(RESULTS, name) for name in PLAN["sets"] if name != "shared"}
    findings.conclude(PLAN, evidence, tmp_path, Console(quiet=True))
    for name in ("findings.md", "findings.csv", "scores-main.csv"):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text(), f"{name}: `make reproduce` writes it"


def what_we_found(path: str) -> str:
    """The section of a text that reports the study."""
    return (CHECKOUT / path).read_text().partition("\n## What we found\n")[2].partition("\n## ")[0]


def cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


INTERVAL = r"[-+]?\d+\.\d+ \[[-+]?\d+\.\d+, [-+]?\d+\.\d+\]"
CLAIM = rf"`([^`]+ - [^`]+)`(?: on `(\w+)`)? ({INTERVAL}) (up|down|undecided)"
"""How the texts print a difference: ``what is compared`` on ``set`` value [interval] verdict."""


def claims() -> dict[tuple[str, str], tuple[str, str]]:
    """Value with interval, and verdict, of every contrast by what is compared and the set."""
    found = {}
    for row in pd.read_csv(RESULTS / "findings.csv").to_dict("records"):
        measure = QUESTIONS[row["question"]].get("measure", "war")
        ends = (row[column] for column in (measure, f"{measure}_low", f"{measure}_high"))
        key = row["compared"], row["set"]
        assert key not in found, "asked twice, with two corrections"
        found[key] = points(*ends, sign="+"), row["verdict"].rpartition(" ")[2]
    return found


@pytest.mark.parametrize(
    "path", ["README.md", *(f"experiments/model/{name}.md" for name in ("m3dfel", "micacl", "hdf", "baselines"))]
)
def test_texts_print_what_the_evidence_says(path: str) -> None:
    section = " ".join(line for line in what_we_found(path).splitlines() if not line.startswith("|"))
    section = re.sub(r"\s+", " ", section)
    known = claims()
    printed = re.findall(CLAIM, section)
    assert len(printed) >= (len(PLAN["questions"]) if path == "README.md" else 1)
    for compared, name, value, verdict in printed:
        assert (value, verdict) == known[compared, name or "main"], compared
    assert len(printed) == len(re.findall(INTERVAL, section)), "an interval without its contrast"


def test_readme_prints_the_table_of_the_methods() -> None:
    ours, theirs = (
        [cells(line) for line in text.splitlines() if line.startswith("|") and "---" not in line]
        for text in (what_we_found("README.md"), (RESULTS / "findings.md").read_text().split("**")[2])
    )
    assert ours == theirs


def test_readme_counts_what_there_is() -> None:
    section = what_we_found("README.md")
    evidence = {name: Evidence.read(RESULTS, name) for name in PLAN["sets"] if name != "shared"}
    trainings = sum((one.runs["rule"] == "best_val").sum() for one in evidence.values())
    assert f"{trainings} trainings" in section
    assert f"sets of {PLAN['sets']['shared']['clips']} clips" in section
    assert f"{round(evidence['main'].answers['fold'].value_counts().mean())} test clips" in section
