"""The command line, from words to run folders, on tiny datasets in the real layouts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import write_clips

from dfer_zoo import models
from dfer_zoo.__main__ import main
from dfer_zoo.data import DFEW
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.models import Baseline
from dfer_zoo.runs import fingerprint

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
DATA = sorted(path.stem for path in (EXPERIMENTS / "data").glob("*.yaml"))
MODELS = sorted(path.stem for path in (EXPERIMENTS / "model").glob("*.yaml"))

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quick_measurement")]


def words(verb: str, data: str, model: str, root: Path, runs: Path, *more: str) -> list[str]:
    """The words of a small run: 32 pixels, an eighth of the channels, float32 on any machine, no progress bar."""
    configs = ("trainer", f"data/{data}", f"model/{model}", "quick")
    small = ["--data.init_args.size=32", "--data.init_args.workers=0", "--model.init_args.width=8"]
    small.append("--trainer.precision=32-true")
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    return [
        verb,
        *(f"--config={EXPERIMENTS / config}.yaml" for config in configs),
        f"--data.init_args.root={root}",
        f"--runs={runs}",
        *small,
        *quiet,
        *more,
    ]


def checkpoint_of(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint_of(run, name)["state_dict"]


def different(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of the weights that are not equal bit for bit."""
    assert ours.keys() == theirs.keys()
    return [key for key in ours if not torch.equal(ours[key], theirs[key])]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run_words(dfew_root: Path, runs: Path) -> list[str]:
    return words("fit", "dfew", "r3d_18", dfew_root, runs, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1")


@pytest.fixture(scope="module")
def finished(run_words: list[str], runs: Path) -> Path:
    """A run trained for two epochs and tested."""
    assert main(run_words) == 0
    return runs / "r3d_18-dfew" / "fold1-seed0"


def test_every_recipe_is_found() -> None:
    assert {"clips", "dfew", "ferv39k"} <= set(DATA)
    assert {"hdf", "m3dfel", "m3dfel_ial", "micacl", "r3d_18"} <= set(MODELS)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", DATA)
def test_every_pair_of_recipes_trains_two_steps(
    data: str,
    model: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps, changed = [], []

    def remember(module: models.DFERModel, *_: object) -> None:
        steps.append(module.global_step)
        changed.append(torch.cat([p.detach().flatten() for p in module.net.parameters()]))

    monkeypatch.setattr(models.DFERModel, "on_train_batch_start", remember)
    root = request.getfixturevalue(f"{data}_root")
    monkeypatch.setattr(models.DFERModel, "on_train_end", remember)
    assert (
        main(
            words(
                "fit", data, model, root, tmp_path / "runs", "--data.init_args.batch_size=4", "--trainer.fast_dev_run=2"
            )
        )
        == 0
    )
    assert steps == [0, 1, 2]
    assert changed[-1].isfinite().all()
    assert not torch.equal(changed[1], changed[2])
    assert not (tmp_path / "runs").exists(), "a trial of two steps leaves no run behind"


def test_a_run_leaves_all_its_files(finished: Path) -> None:
    expected = {
        "config.yaml",
        "cost.json",
        "metrics.csv",
        "checkpoints/best_val.ckpt",
        "checkpoints/last.ckpt",
        "evaluations/test-best_val.csv",
        "evaluations/test-best_val.json",
    }
    found = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert expected <= found
    assert any(name.startswith("events.out.tfevents") for name in found)
    assert not [name for name in found if name.endswith(".tmp")]


def test_config_repeats_the_run(finished: Path, dfew_root: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["model"]["init_args"]["width"] == 8
    assert config["model"]["init_args"]["backbone"] == "r3d_18"
    assert config["data"]["init_args"]["root"] == str(dfew_root)
    assert config["seed_everything"] == 0


def test_provenance_names_every_start(finished: Path, dfew_root: Path) -> None:
    (start,) = json.loads((finished / "provenance.json").read_text())["starts"]
    assert start["command"].startswith("dfer-zoo fit ")
    assert str(dfew_root) in start["command"]
    assert start["seed"] == 0
    assert start["versions"]["torch"] == torch.__version__.partition("+")[0]
    data = DFEW(str(dfew_root))
    assert list(start["clips"]) == ["train", "val", "test"]
    for split, clips in start["clips"].items():
        table = data.clips(split)
        assert clips["count"] == len(table)
        assert clips["hash"] == fingerprint(pd.DataFrame({"clip": table["name"][::-1], "label": table["label"][::-1]}))


def test_metrics_are_logged_every_step(finished: Path) -> None:
    table = pd.read_csv(finished / "metrics.csv")
    steps = table["train_loss"].dropna()
    assert len(steps) == 2 * 4  # 50 training clips in batches of 16, two epochs
    assert np.isfinite(steps).all()
    assert table["val_war"].notna().sum() == 2
    assert table["val_war"].dropna().between(0, 1).all()


def test_predictions_agree_with_the_metrics(finished: Path, dfew_root: Path) -> None:
    table = pd.read_csv(finished / "evaluations" / "test-best_val.csv", dtype={"clip": str})
    result = json.loads((finished / "evaluations" / "test-best_val.json").read_text())
    assert list(table) == ["clip", "label", *EMOTIONS]
    listed = pd.read_csv(dfew_root / "EmoLabel_DataSplit" / "test(single-labeled)" / "set_1.csv")
    assert table["clip"].tolist() == [f"{name:05d}" for name in sorted(listed["video_name"])]
    by_name = dict(zip(listed["video_name"], listed["label"] - 1, strict=True))
    assert table["label"].tolist() == [by_name[int(name)] for name in table["clip"]]
    predicted = table[list(EMOTIONS)].to_numpy().argmax(1)
    right = predicted == table["label"]
    assert result["clips"] == len(table) == np.sum(result["confusion"])
    assert result["war"] == pytest.approx(right.mean())
    assert result["uar"] == pytest.approx(right.groupby(table["label"]).mean().mean())
    for row, label in enumerate(EMOTIONS):
        assert result["recall"][label] == pytest.approx(right[table["label"] == row].mean())
        counts = np.bincount(predicted[table["label"] == row], minlength=7)
        assert result["confusion"][row] == counts.tolist()


def test_cost_is_measured(finished: Path) -> None:
    cost = json.loads((finished / "cost.json").read_text())
    assert cost["parameters"] == sum(
        p.numel() for p in models.load(finished / "checkpoints/best_val.ckpt").net.parameters()
    )
    assert cost["gmacs_per_clip"] > 0
    assert cost["inference_clips_per_second"] > 0


def test_tensorboard_holds_the_losses(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished))
    events.Reload()
    assert len(events.Scalars("train_loss")) == 8


def test_the_same_words_after_a_finished_run_start_a_new_version(
    finished: Path, run_words: list[str], runs: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    config = copy / "r3d_18-dfew" / "fold1-seed0" / "config.yaml"
    config.write_text(config.read_text().replace(str(runs), str(copy)))
    before = {path: path.stat().st_mtime_ns for path in config.parent.rglob("*")}
    again = [word.replace(str(runs), str(copy)) for word in run_words]
    assert main(again) == 0
    second = copy / "r3d_18-dfew" / "fold1-seed0-2"
    assert (second / "evaluations" / "test-best_val.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in config.parent.rglob("*")} == before
    assert different(weights(second), weights(finished)) == []


def test_other_words_never_share_a_folder(finished: Path, run_words: list[str], runs: Path) -> None:
    before = (finished / "config.yaml").read_text()
    assert main([*run_words, "--seed_everything=1", "--trainer.max_epochs=1"]) == 0
    assert (runs / "r3d_18-dfew" / "fold1-seed1" / "checkpoints" / "best_val.ckpt").is_file()
    assert main([*run_words, "--model.init_args.lr=1e-3", "--trainer.max_epochs=1"]) == 0
    assert (runs / "r3d_18-dfew" / "fold1-seed0-2" / "checkpoints" / "best_val.ckpt").is_file()
    assert (finished / "config.yaml").read_text() == before


@pytest.fixture(scope="module")
def by_all_rules(run_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the same words, but for the other rules to choose a checkpoint by."""
    runs = tmp_path_factory.mktemp("by_all_rules") / "not[/markup]"
    assert main([*run_words, f"--runs={runs}", "--rules=[last,best_test]"]) == 0
    return runs / "r3d_18-dfew" / "fold1-seed0"


def test_other_rules_leave_the_training_as_it_is(finished: Path, by_all_rules: Path) -> None:
    for name in ("last", "best_val"):
        assert different(weights(by_all_rules, name), weights(finished, name)) == []
    for suffix in ("csv", "json"):
        evaluation = Path("evaluations") / f"test-best_val.{suffix}"
        assert (by_all_rules / evaluation).read_text() == (finished / evaluation).read_text()
    ours, theirs = (pd.read_csv(run / "metrics.csv") for run in (by_all_rules, finished))
    assert set(ours) - set(theirs) == {"test_war", "test_uar"}
    pd.testing.assert_frame_equal(ours[list(theirs)], theirs, check_exact=True)
    assert not (finished / "checkpoints" / "best_test.ckpt").exists()


def test_each_rule_tests_the_epoch_that_it_chooses(by_all_rules: Path) -> None:
    epochs = pd.read_csv(by_all_rules / "metrics.csv").dropna(subset="val_war")
    assert len(epochs) == 2
    chosen = {
        "best_val": epochs["val_war"].idxmax(),
        "best_test": epochs["test_war"].idxmax(),
        "last": epochs.index[-1],
    }
    for rule, row in chosen.items():
        assert checkpoint_of(by_all_rules, rule)["epoch"] == epochs["epoch"][row]
        result = json.loads((by_all_rules / "evaluations" / f"test-{rule}.json").read_text())
        assert result["war"] == pytest.approx(epochs["test_war"][row])
        assert result["uar"] == pytest.approx(epochs["test_uar"][row])
        assert len(pd.read_csv(by_all_rules / "evaluations" / f"test-{rule}.csv")) == result["clips"] == 14


@pytest.mark.parametrize(("verb", "split"), [("test", "test"), ("validate", "val"), ("predict", "predict")])
def test_verbs_on_a_checkpoint(
    verb: str, split: str, finished: Path, dfew_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "evaluations")
    checkpoint = run / "checkpoints" / "best_val.ckpt"
    assert main(words(verb, "dfew", "r3d_18", dfew_root, tmp_path / "runs", f"--ckpt_path={checkpoint}")) == 0
    name = f"{split}-best_val"
    assert sorted(path.name for path in (run / "evaluations").iterdir()) == [f"{name}.csv", f"{name}.json"]
    table = pd.read_csv(run / "evaluations" / f"{name}.csv", dtype={"clip": str})
    if verb == "validate":
        assert len(table) == 7  # one clip of every class is held out
        assert set(table["label"]) == set(range(7))
    else:
        expected = pd.read_csv(finished / "evaluations" / "test-best_val.csv", dtype={"clip": str})
        pd.testing.assert_frame_equal(table, expected, rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "runs").exists()
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--data.fold=2", "test-best_val-fold=2"),
        ("--data.shuffle_frames=true", "test-best_val-shuffle_frames=True"),
        ("--trainer.limit_test_batches=1", "test-best_val-partial"),
    ],
)
def test_another_evaluation_never_takes_the_place_of_the_runs_own(
    option: str, name: str, finished: Path, dfew_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = (run / "evaluations" / "test-best_val.json").read_text()
    checkpoint = run / "checkpoints" / "best_val.ckpt"
    assert main([*words("test", "dfew", "r3d_18", dfew_root, tmp_path, f"--ckpt_path={checkpoint}"), option]) == 0
    assert (run / "evaluations" / "test-best_val.json").read_text() == before
    assert (run / "evaluations" / f"{name}.json").is_file()


def test_clips_of_another_shape_than_the_checkpoints_are_refused(
    finished: Path, dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = finished / "checkpoints" / "best_val.ckpt"
    asked = words("test", "dfew", "r3d_18", dfew_root, tmp_path, f"--ckpt_path={checkpoint}", "--data.frames=16")
    assert main(asked) == 2
    assert "--data.frames 8 --data.size 32" in " ".join(capsys.readouterr().err.split())


def test_predict_takes_clips_without_labels(finished: Path, tmp_path: Path) -> None:
    root = write_clips(tmp_path / "holiday", clips=9)
    (root / "clips.csv").unlink()
    checkpoint = tmp_path / "model.ckpt"
    shutil.copy(finished / "checkpoints" / "best_val.ckpt", checkpoint)
    assert main(words("predict", "clips", "r3d_18", root, tmp_path / "runs", f"--ckpt_path={checkpoint}")) == 0
    table = pd.read_csv(tmp_path / "evaluations" / "predict-model-clips-holiday.csv")
    assert table["clip"].tolist() == [f"clip {i}" for i in range(9)]
    assert (table["label"] == -1).all()
    assert np.isfinite(table[list(EMOTIONS)].to_numpy()).all()
    assert not (tmp_path / "evaluations" / "predict-model-clips-holiday.json").exists()


def test_compare_and_gallery(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(finished), "--out", str(tmp_path / "comparison")]) == 0
    shown = capsys.readouterr().out
    result = json.loads((finished / "evaluations" / "test-best_val.json").read_text())
    assert f"{100 * result['war']:.2f}" in shown
    assert (tmp_path / "comparison" / "confusion.png").stat().st_size > 5000
    assert len(pd.read_csv(tmp_path / "comparison" / "comparison.csv")) == 1
    assert main(["gallery", str(finished), "--out", str(tmp_path / "gallery.png")]) == 0
    assert (tmp_path / "gallery.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train"], "There is no command 'train'. There are: fit,"),
        (["compare", "nowhere"], "nowhere is no run folder"),
        (["gallery", "nowhere"], "nowhere is no run folder"),
        (["check", "dfew", "--root", "nowhere"], "nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_input_ends_with_status_2_and_a_plain_message(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 2
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split())
    assert "Traceback" not in shown


def test_evaluation_needs_a_checkpoint(dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("test", "dfew", "r3d_18", dfew_root, tmp_path)) == 2
    assert "needs --ckpt_path" in " ".join(capsys.readouterr().err.split())
    assert main(words("test", "dfew", "r3d_18", dfew_root, tmp_path, "--ckpt_path=nowhere.ckpt")) == 2
    assert "There is no checkpoint nowhere.ckpt" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("content", ["text", "weights"])
def test_evaluation_refuses_what_is_no_checkpoint(
    content: str, dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.ckpt"
    if content == "text":
        path.write_text("not a checkpoint")
    else:
        torch.save({"state_dict": {"fc.weight": torch.zeros(1)}}, path)
    assert main(words("test", "dfew", "r3d_18", dfew_root, tmp_path, f"--ckpt_path={path}")) == 2
    shown = "".join(capsys.readouterr().err.split())
    assert "CheckpointError" in shown
    assert "other.ckpt" in shown


def test_the_checkpoint_says_which_model_is_evaluated(finished: Path, dfew_root: Path, tmp_path: Path) -> None:
    """Its hyperparameters go before the words, so weights never meet the wrong network."""
    checkpoint = tmp_path / "copy.ckpt"
    shutil.copy(finished / "checkpoints" / "best_val.ckpt", checkpoint)
    assert main(words("test", "dfew", "m3dfel", dfew_root, tmp_path, f"--ckpt_path={checkpoint}")) == 0
    ours = pd.read_csv(tmp_path / "evaluations" / f"test-copy-dfew-{dfew_root.name}.csv")
    theirs = pd.read_csv(finished / "evaluations" / "test-best_val.csv")
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_cannot_have_code_imported(
    finished: Path, dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile.py").write_text("raise SystemExit('it runs')")
    monkeypatch.syspath_prepend(tmp_path)
    content = checkpoint_of(finished, "best_val")
    content["hyper_parameters"]["_class_path"] = "hostile.Net"
    torch.save(content, tmp_path / "copy.ckpt")
    line = words("test", "dfew", "r3d_18", dfew_root, tmp_path, f"--ckpt_path={tmp_path / 'copy.ckpt'}")
    assert main(line) == 0
    content["hyper_parameters"]["bogus"] = 1
    torch.save(content, tmp_path / "copy.ckpt")
    assert main(line) == 2
    assert "unexpected keyword argument 'bogus'" in " ".join(capsys.readouterr().err.split())


def test_a_lower_learning_rate_continues_as_a_new_run(finished: Path, run_words: list[str], tmp_path: Path) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    more = ["--trainer.max_epochs=4", "--model.lr=1e-4", f"--ckpt_path={last}", f"--runs={tmp_path}"]
    assert main([*run_words, *more]) == 0
    run = tmp_path / "r3d_18-dfew" / "fold1-seed0"
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["lr"] == 1e-4
    table = pd.read_csv(run / "metrics.csv").dropna(subset="train_loss")
    assert table["step"].min() == 8, "the steps of two epochs are behind it"
    (rates,) = (table[name].dropna() for name in table if name.startswith("lr-"))
    assert rates.max() <= 1e-4


@pytest.mark.parametrize("data", DATA)
def test_missing_data_says_where_to_get_it(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "nowhere"
    assert main(words("fit", data, "r3d_18", root, tmp_path / "runs")) == 2
    shown = "".join(capsys.readouterr().err.split())
    assert "DataError" in shown
    assert "nowhere" in shown
    assert not (tmp_path / "runs" / f"r3d_18-{data}" / "fold1-seed0" / "checkpoints").exists()


def test_a_loss_that_is_not_finite_stops_the_run(
    dfew_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Baseline, "losses", lambda *_: {"loss": torch.tensor(torch.nan, requires_grad=True)})
    assert main(words("fit", "dfew", "r3d_18", dfew_root, tmp_path / "runs")) == 2
    assert "The loss is not finite at step 0" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_are_light(word: str) -> None:
    program = (
        "import sys; from dfer_zoo.__main__ import main; status = main([sys.argv[1]]);"
        "heavy = {'torch', 'lightning', 'cv2', 'pandas', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("0.1.0" if word == "--version" else "synthesize") in done.stdout


def test_help_of_a_verb_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["fit", "--help"])
    assert exited.value.code == 0
    assert "--runs" in capsys.readouterr().out


def test_unknown_option_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["fit", "--no_such_option=1"])
    assert exited.value.code == 2
    assert "no_such_option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.fold", "9"], "data.fold is 9"),
        (["--model.instances", "3"], "3 instances"),
        (["--model.pretrained", "nowhere.pth", "--model.width", "64"], "no weights file nowhere.pth"),
    ],
)
def test_a_wrong_option_of_a_class_is_one_plain_message(
    options: list[str], message: str, dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words("fit", "dfew", "m3dfel", dfew_root, tmp_path), *options]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Union" not in error


def test_long_tail_options_and_averaged_weights_by_their_names(dfew_root: Path, tmp_path: Path) -> None:
    options = ["--trainer.callbacks+=EMAWeightAveraging", "--data.balanced=true"]
    options += ["--model.class_weighted=true", "--model.logit_adjustment=1.0", "--trainer.max_epochs=1"]
    options += ["--model.warmup_epochs=0"]
    assert main([*words("fit", "dfew", "r3d_18", dfew_root, tmp_path), *options]) == 0
    run = tmp_path / "r3d_18-dfew" / "fold1-seed0"
    assert "averaging_state" in checkpoint_of(run)
    written, checkpoint = run / "evaluations" / "test-best_val.csv", run / "checkpoints" / "best_val.ckpt"
    in_fit = pd.read_csv(written)
    written.unlink()
    assert main(["test", f"--config={run / 'config.yaml'}", f"--ckpt_path={checkpoint}"]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(written), in_fit, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "words",
    ["a b --out o --seed 3 --fast", "--out o --seed=3 --fast a b", "a --fast --seed 3 b --out=o", "--fast true a b"],
)
def test_a_list_may_stand_before_and_behind_the_options(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(runs: list[Path], out: Path = Path("o"), seed: int = 3, fast: bool = False, slow: bool = False) -> None:
        called.append((runs, Path(out), seed, fast, slow))

    called: list[tuple] = []
    monkeypatch.setattr("dfer_zoo.report.compare", record)
    assert main(["compare", *words.split()]) == 0
    assert called == [([Path("a"), Path("b")], Path("o"), 3, True, False)]


def test_a_switch_may_be_said_to_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(runs: list[Path], fast: bool = True) -> None:
        called.append((runs, fast))

    called: list[tuple] = []
    monkeypatch.setattr("dfer_zoo.report.compare", record)
    assert main(["compare", "--fast", "false", "a"]) == 0
    assert called == [([Path("a")], False)]
