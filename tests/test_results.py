"""Reading runs: what a folder holds, and folders that cannot be used."""

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import DataError, InputError
from dfer_zoo.results import evaluation_table, load_run
from dfer_zoo.runs import BEST, evaluate, write_json, write_text


def write_evaluation(run: Path, right: np.ndarray, label: np.ndarray, clip: list[str], rule: str = BEST) -> None:
    """Write the predictions of a rule and their scores; a wrong answer is the next class."""
    said = np.where(right, label, (label + 1) % 7)
    table = pd.DataFrame(np.eye(7)[said], columns=list(EMOTIONS))
    table.insert(0, "clip", clip)
    table.insert(1, "label", label)
    write_text(run / "evaluations" / f"test-{rule}.csv", table.to_csv(index=False))
    write_json(run / "evaluations" / f"test-{rule}.json", evaluate(table))


def write_run(
    runs: Path,
    method: str = "m3dfel",
    fold: int | None = 1,
    seed: int = 0,
    right: float = 0.75,
    version: str = "",
    data: str = "DFEW",
    root: str = "data/dfew",
    counts: tuple[int, ...] = (4,) * 6 + (0,),
    cost: bool = True,
    rules: tuple[str, ...] = (BEST,),
    **settings: object,
) -> Path:
    """Write a run that is right about the first share `right` of the clips of each class.

    The clips of a fold are the same for all methods; those right differ by method and seed beyond the first ones.
    """
    run = runs / f"{method}-{data.lower()}" / f"{f'fold{fold}' if fold else 'all'}-seed{seed}{version}"
    fold_setting = {"fold": fold} if fold else {}
    config = {
        "seed_everything": seed,
        "method": method,
        "trainer": {"max_epochs": 2, "devices": 1},
        "model": {"class_path": "dfer_zoo.models.M3DFEL", "init_args": {"lr": 0.1, **settings}},
        "data": {"class_path": f"dfer_zoo.data.{data}", "init_args": {"root": root, **fold_setting}},
    }
    write_text(run / "config.yaml", yaml.safe_dump(config))
    label = np.repeat(np.arange(7), counts)
    place = np.concatenate([np.arange(count) for count in counts])
    clip = [f"{10_000 * (fold or 0) + number:05d}" for number in range(len(label))]
    for rule in rules:
        write_evaluation(run, place < right * np.array(counts)[label], label, clip, rule)
    content = {"parameters": 33_170_000, "gmacs_per_clip": 4.25, "inference_clips_per_second": 12.5, "device": "cpu"}
    write_json(run / "cost.json", content if cost else {})
    return run


def shown(table) -> str:
    console = Console(width=200, record=True, color_system=None, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_a_run_says_what_it_is(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, "mine", fold=3, seed=2))
    assert (run.name, run.method, run.data, run.fold, run.seed) == ("mine-dfew/fold3-seed2", "mine", "DFEW", 3, 2)
    assert run.root == Path("data/dfew")
    assert run.evaluation["war"] == 0.75
    assert list(run.predictions) == ["clip", "label", *EMOTIONS]
    assert run.predictions["clip"].iloc[0] == "30000"


def test_a_method_without_a_name_is_called_by_its_class(tmp_path: Path) -> None:
    path = write_run(tmp_path, fold=None, data="FERV39k")
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("method: m3dfel", "method: null"))
    run = load_run(path)
    assert (run.method, run.fold, run.data) == ("m3dfel", None, "FERV39k")


def test_evaluation_table_is_in_percent(tmp_path: Path) -> None:
    text = shown(evaluation_table(load_run(write_run(tmp_path)).evaluation, "title"))
    assert text.count("75.00") == 8  # WAR, UAR and six classes
    assert "24" in text


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder.*runs/<model>-<data>/<version>, which `make train` writes"):
        load_run(tmp_path)


def test_an_unfinished_run_says_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "cost.json").unlink()
    with pytest.raises(InputError, match=r"not finished.*Start its training again"):
        load_run(run)


def test_a_run_that_was_not_tested_says_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shutil.rmtree(run / "evaluations")
    with pytest.raises(InputError, match=rf"has no test-best_val\.json\. Run `make evaluate RUN={run}`"):
        load_run(run)


def test_a_rule_that_was_not_scored_names_its_command(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with pytest.raises(InputError, match=rf"`dfer-zoo fit --config {run}/config.yaml --rules '\[best_test\]'`"):
        load_run(run, "best_test")
    write_text(run / "checkpoints" / "last.ckpt", "")
    with pytest.raises(InputError, match=rf"`dfer-zoo test --config {run}/config.yaml --ckpt_path {run}/.*/last.ckpt`"):
        load_run(run, "last")


def test_damaged_json_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "evaluations" / "test-best_val.json").write_text('{"war": 0.')
    with pytest.raises(DataError, match=r"test-best_val.json is damaged"):
        load_run(run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "has no clips, test_set, war"),
        ("[]", "has no keys"),
        ('{"clips": 3}', "has no test_set"),
        ("ÿ", "damaged"),
    ],
)
def test_an_evaluation_that_lacks_scores_is_refused(tmp_path: Path, content: str, message: str) -> None:
    run = write_run(tmp_path)
    (run / "evaluations" / "test-best_val.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=rf"test-best_val.json.*{message}.*`make evaluate RUN={run}`"):
        load_run(run)


def test_predictions_that_are_not_there_say_what_to_do(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "evaluations" / "test-best_val.csv").unlink()
    with pytest.raises(DataError, match=rf"has no predictions \(test-best_val.csv\).*`make evaluate RUN={run}`"):
        _ = load_run(run).predictions


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda table: table.rename(columns={"Sad": "Contempt"}),
            r"has columns clip, label, Happy, Contempt, .*expected",
        ),
        (lambda table: table[["clip", "label", *reversed(EMOTIONS)]], r"has columns clip, label, Fear, .*expected"),
        (lambda table: table.assign(label=-1), "has labels other than 0 to 6"),
        (lambda table: table.assign(label="Happy"), "has labels other than 0 to 6"),
        (lambda table: pd.concat([table, table[:1]]), "has clip '10000' twice"),
        (lambda table: table[:0], "has no clips"),
        (lambda table: table.assign(Sad="much"), "has logits that are no finite numbers, first those of '10000'"),
        (lambda table: table.assign(Sad=[*table["Sad"][:-1], np.nan]), "has logits .*first those of '10023'"),
        (lambda table: table.assign(Sad=np.inf), "has logits that are no finite numbers"),
    ],
    ids=[
        *("other classes", "other order", "no labels", "words as labels", "repeated clip"),
        *("no clips", "words as logits", "no number", "infinity"),
    ],
)
def test_predictions_that_are_not_ours_are_refused(tmp_path: Path, damage, message: str) -> None:
    run = load_run(write_run(tmp_path))
    path = run.path / "evaluations" / "test-best_val.csv"
    damage(run.predictions).to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"{path.name} {message}.*make evaluate"):
        _ = run.predictions


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-12],
        lambda content: content + b",,,,,,,,,,,,\n",
        lambda content: content.replace(b"10005", b"\xff0005"),
    ],
    ids=["empty", "cut off", "ragged", "no text"],
)
def test_damaged_predictions_are_refused(tmp_path: Path, damage) -> None:
    run = load_run(write_run(tmp_path))
    path = run.evaluation_path.with_suffix(".csv")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{path.name} (is damaged|has logits).*make evaluate"):
        _ = run.predictions


def test_clips_may_be_called_anything(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path))
    path = run.evaluation_path.with_suffix(".csv")
    path.write_text(path.read_text().replace("10005", "NA").replace("10006", "007"))
    assert run.predictions["clip"].tolist()[5:7] == ["NA", "007"]


@pytest.mark.parametrize("config", ["{}", "", "model: {class_path: 3}", "[", "data: {class_path: DFEW}"])
def test_a_config_that_does_not_say_what_was_trained_is_refused(tmp_path: Path, config: str) -> None:
    run = load_run(write_run(tmp_path))
    (run.path / "config.yaml").write_text(config)
    with pytest.raises(DataError, match=r"config.yaml does not say which model"):
        _ = run.method
