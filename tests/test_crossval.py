"""Cross-validation: each run once, whatever happens on the way, and what they say together."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import write_clips
from hypothesis import given
from hypothesis import strategies as st

from dfer_zoo import jobs, models
from dfer_zoo.__main__ import main
from dfer_zoo.crossval import numbers
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.jobs import Job, Stopped, Training, run_missing
from dfer_zoo.runs import write_text

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("checkout", "quick_measurement")]

SMALL = ["--data.size=32", "--data.workers=0", "--model.width=8", "--trainer.enable_progress_bar=false"]


def command(
    runs: Path, root: Path, *more: str, model: str = "r3d_18", data: str = "dfew", verb: str = "crossval"
) -> list[str]:
    """The words of a small cross-validation."""
    named = ["--table", model] if verb == "ablation" else ["--model", model]
    return [verb, *named, "--data", data, "--quick", "--runs", str(runs), "--root", str(root), *SMALL, *more]


def listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    """Return the commands that `--list` prints, and the table of states as one line."""
    capsys.readouterr()
    assert main([*words, "--list"]) == 0
    shown = capsys.readouterr()
    return shown.out.splitlines(), " ".join(shown.err.replace("│", " ").split())


@given(st.lists(st.integers(0, 20), min_size=1, unique=True))
def test_numbers_may_be_written_as_ranges(wanted: list[int]) -> None:
    wanted = sorted(wanted)
    starts = [n for n in wanted if n - 1 not in wanted]
    ends = [n for n in wanted if n + 1 not in wanted]
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
    assert numbers(text, "folds") == wanted
    assert numbers(",".join(map(str, wanted)), "folds") == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "hfd", "--data", "dfew"], "There is no experiments/model/hfd.yaml. There are: hdf, m3dfel,"),
        (["--model", "hdf", "--data", "few"], "There is no experiments/data/few.yaml. There are: clips, dfew,"),
        (["--model", "hdf", "--data", "dfew", "--folds", "6"], "--folds is '6'; dfew has folds 1, 2, 3, 4, 5"),
        (["--model", "hdf", "--data", "dfew", "--folds", "3-1"], "--folds is '3-1'"),
        (["--model", "hdf", "--data", "dfew", "--seeds", "all"], "--seeds is 'all'"),
        (["--model", "hdf", "--data", "ferv39k", "--folds", "1-5"], "ferv39k has one fixed split and no folds"),
        (["--model", "hdf", "--data", "dfew", "--jobs", "0"], "--jobs is 0"),
        (["--model", "hdf,m3dfel", "--data", "dfew", "--method", "same", "--list"], "hdf and m3dfel would both be"),
    ],
)
def test_wrong_words_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crossval", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_it_starts_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["crossval", "--model", "hdf", "--data", "dfew"]) == 2
    assert "Start this in the project's checkout" in " ".join(capsys.readouterr().err.split())


def test_an_option_that_fit_does_not_know_is_refused_before_anything_runs(
    pretend: list[str], dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(command(tmp_path, dfew_root, "--fold", "1"))
    assert exited.value.code == 2
    assert "--fold" in capsys.readouterr().err
    assert pretend == []


def test_all_folds_and_seeds_are_run_once(
    pretend: list[str], dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path, dfew_root, "--seeds", "0-1", "--folds", "4", model="r3d_18,m3dfel")
    assert main(words) == 0
    assert pretend == [f"{model}-dfew/fold4-seed{seed}" for model in ("r3d_18", "m3dfel") for seed in (0, 1)]
    pretend.clear()
    assert main(words) == 0
    assert pretend == []
    more = command(tmp_path, dfew_root, "--seeds", "0-2", "--folds", "4")
    assert main(more) == 0
    assert pretend == ["r3d_18-dfew/fold4-seed2"]
    assert len(listed(command(tmp_path, dfew_root), capsys)[0]) == 4, "without --folds, all five"


def test_a_dataset_without_folds_is_repeated_by_seeds(
    pretend: list[str], ferv39k_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, ferv39k_root, "--seeds", "0-2", data="ferv39k")) == 0
    assert pretend == [f"r3d_18-ferv39k/all-seed{seed}" for seed in range(3)]
    folder = tmp_path / "r3d_18-ferv39k"
    wars = [json.loads((folder / f"all-seed{s}/evaluations/test-best_val.json").read_text())["war"] for s in range(3)]
    found = json.loads((folder / "crossval.json").read_text())["rules"]["best_val"]["war"]
    assert found == {
        "mean": pytest.approx(np.mean(wars)),
        "sd_folds": None,
        "sd_seeds": pytest.approx(np.std(wars, ddof=1)),
    }
    assert "sd, seeds" in capsys.readouterr().out


def test_folds_of_own_clips_are_those_of_their_csv(
    pretend: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_clips(tmp_path / "clips", frames=2)
    assert main(command(tmp_path, root, data="clips")) == 0
    assert main(command(tmp_path, root, "--folds", "1", data="clips")) == 2
    assert "clips has one fixed split and no folds" in " ".join(capsys.readouterr().err.split())
    lines = (root / "clips.csv").read_text().splitlines()
    rows = [f"{line},{(1, 2, 2, 7)[i // 7]}" for i, line in enumerate(lines[1:])]
    (root / "folded.csv").write_text("\n".join([f"{lines[0]},fold", *rows]))
    words = command(tmp_path, root, "--data.csv=folded.csv", data="clips")
    assert main(words) == 0
    assert pretend == ["r3d_18-clips/clips-seed0", *(f"r3d_18-clips/folded-fold{fold}-seed0" for fold in (1, 2, 7))]
    table = pd.read_csv(tmp_path / "r3d_18-clips" / "crossval.csv")
    assert table[["fold", "clips"]].to_numpy().tolist() == [[1, 7], [2, 14], [7, 7]]
    assert main([*words, "--folds", "1-3"]) == 2
    assert "--folds is '1-3'; clips has folds 1, 2, 7." in " ".join(capsys.readouterr().err.split())


def test_another_recipe_is_another_run(
    pretend: list[str], dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path, dfew_root, "--folds", "1")
    assert main(words) == 0
    changed = [*words, "--model.lr", "0.5"]
    _, states = listed(changed, capsys)
    assert "fold1-seed0-2 new; fold1-seed0 differs in model.init_args.lr" in states
    without_effect = ["--data.workers=3", "--checkpoint_minutes=1", "--trainer.enable_model_summary=false"]
    assert listed([*words, *without_effect], capsys)[0] == []
    pretend.clear()
    assert main(changed) == 0
    assert pretend == ["r3d_18-dfew/fold1-seed0-2"]
    ours = json.loads((tmp_path / "r3d_18-dfew" / "crossval.json").read_text())
    assert ours["runs"] == pretend, "runs of two recipes are never mixed"
    assert main(words) == 0
    assert len(pretend) == 1


def test_a_run_of_before_an_option_was_added_is_known(
    pretend: list[str], dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path, dfew_root, "--folds", "1")
    assert main(words) == 0
    config = tmp_path / "r3d_18-dfew" / "fold1-seed0" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    del content["model"]["init_args"]["logit_adjustment"], content["rules"], content["data"]["init_args"]["color"]
    config.write_text(yaml.safe_dump(content))
    assert listed([*words, "--data.color=affine"], capsys)[0] == []
    assert "differs in data.init_args.color" in listed([*words, "--data.color=exact"], capsys)[1]
    config.write_text(yaml.safe_dump({**content, "an_option_that_is_no_more": 1}))
    assert "differs in" in listed(words, capsys)[1]


def test_results_agree_with_the_predictions(
    pretend: list[str], dfew_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, dfew_root, "--folds", "1-3", "--seeds", "0-1", "--rules=[best_test]")) == 0
    shown = capsys.readouterr().out
    folder = tmp_path / "r3d_18-dfew"
    for rule in ("best_val", "best_test"):
        scores, recalled = np.zeros((2, 3)), np.zeros((2, 3))
        pooled, answers = np.zeros((7, 7)), 0
        for seed in range(2):
            for fold in range(3):
                path = folder / f"fold{fold + 1}-seed{seed}" / "evaluations" / f"test-{rule}.csv"
                table = pd.read_csv(path)
                said = table[list(EMOTIONS)].to_numpy().argmax(1)
                right = said == table["label"]
                scores[seed, fold] = right.mean()
                recalled[seed, fold] = right.groupby(table["label"]).mean().mean()
                np.add.at(pooled, (table["label"], said), 0.5)
                answers += len(table)
        assert pooled.sum() == answers / 2 == 42
        found = json.loads((folder / "crossval.json").read_text())["rules"][rule]
        for name, values in (("war", scores), ("uar", recalled)):
            assert found[name]["mean"] == pytest.approx(values.mean())
            assert found[name]["sd_folds"] == pytest.approx(values.mean(0).std(ddof=1))
        assert np.array(found["pooled"]["confusion"]) == pytest.approx(pooled)
        assert found["pooled"]["war"] == pytest.approx(np.trace(pooled) / pooled.sum())
        assert found["pooled"]["uar"] == pytest.approx((np.diag(pooled) / pooled.sum(1)).mean())
        assert list(found["pooled"]["recall"].values()) == pytest.approx(np.diag(pooled) / pooled.sum(1))
        assert f"{100 * scores.mean():.2f}" in shown
        rows = pd.read_csv(folder / "crossval.csv").query("rule == @rule").sort_values(["seed", "fold"])
        assert rows["war"].to_numpy() == pytest.approx(scores.ravel())
    assert "best_test (chosen on the test clips)" in shown
    assert (folder / "crossval.png").stat().st_size > 5000


def test_killed_in_a_run_and_started_again(
    train_here: list[str],
    dfew_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first fold by the words of `make train`, the second interrupted: neither is trained twice."""

    class Killed(BaseException): ...

    def kill(module: models.DFERModel, _: object, batch_idx: int) -> None:
        if module.current_epoch == 1 and batch_idx == 2:
            raise Killed

    twice = "--trainer.max_epochs=2"
    assert main(command(tmp_path / "whole", dfew_root, "--folds", "2", twice)) == 0
    recipe = [f"--config=experiments/{file}.yaml" for file in ("trainer", "data/dfew", "model/r3d_18", "quick")]
    more = ["--data.fold", "1", "--data.root", str(dfew_root), "--runs", str(tmp_path / "parts"), *SMALL, twice]
    assert main(["fit", *recipe, *more]) == 0
    train_here.clear()
    words = command(tmp_path / "parts", dfew_root, "--folds", "1-2", twice)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(models.DFERModel, "on_train_batch_start", kill)
        main(words)
    states = listed(words, capsys)[1]
    assert "fold1-seed0 finished" in states
    assert "fold2-seed0 interrupted after 1 epochs" in states
    assert main(words) == 0
    assert train_here == ["r3d_18-dfew/fold2-seed0"] * 2
    runs = tmp_path / "parts" / "r3d_18-dfew"
    assert sorted(path.name for path in runs.iterdir() if path.is_dir()) == ["fold1-seed0", "fold2-seed0"]
    predictions = Path("r3d_18-dfew", "fold2-seed0", "evaluations", "test-best_val.csv")
    assert (tmp_path / "parts" / predictions).read_text() == (tmp_path / "whole" / predictions).read_text()


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[Job]:
    """Return jobs whose processes run the given programs; ``RUN`` is the run folder."""
    monkeypatch.setattr(Job, "command", property(lambda job: [sys.executable, "-c", *job.training.words]))
    return [
        Job(
            Training(
                "m", None, number, (f"from pathlib import Path\nRUN = Path({str(folder / str(number))!r})\n{text}",)
            ),
            folder / str(number),
            "trainer: {max_epochs: 2}",
            (),
        )
        for number, text in enumerate(texts)
    ]


FINISH = "(RUN / 'cost.json').write_text('{}')"
SLEEP = "import os, time\n(RUN / 'pid').write_text(str(os.getpid()))\ntime.sleep(60)"


def test_a_job_that_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = programs(tmp_path, monkeypatch, "print('before'); raise ValueError('the reason')", FINISH, "pass", FINISH)
    assert run_missing(wanted, parallel=2, poll=0.01) == [wanted[0], wanted[2]]
    shown = capsys.readouterr().err
    assert "ValueError: the reason" in shown
    assert (tmp_path / "0" / "fit.log").read_text().count("before") == 1
    assert [job.finished for job in wanted] == [False, True, False, True]
    assert run_missing(wanted, poll=0.01) == [wanted[0], wanted[2]]
    assert (tmp_path / "0" / "fit.log").read_text().count("before") == 2


def test_what_another_process_has_finished_meanwhile_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "(RUN.parent / '1').mkdir(); (RUN.parent / '1' / 'cost.json').write_text('{}')\n"
    wanted = programs(tmp_path, monkeypatch, other + FINISH, "raise ValueError('again')")
    assert run_missing(wanted, poll=0.01) == []
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["cost.json"]
    assert capsys.readouterr().err.count("finished ") == 2


def test_no_more_processes_at_once_than_asked_for_and_they_share_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = (
        "import os, time\nlog = RUN.parent / 'log'\n"
        "for word in ('start', 'end'):\n"
        "    with log.open('a') as file: file.write(f'{word} {os.environ[\"OMP_NUM_THREADS\"]}\\n')\n"
        "    time.sleep(0.1)\n" + FINISH
    )
    monkeypatch.setattr(jobs.torch, "get_num_threads", lambda: 8)
    assert run_missing(programs(tmp_path, monkeypatch, *[count] * 6), parallel=3, poll=0.01) == []
    now = most = 0
    for line in (tmp_path / "log").read_text().splitlines():
        word, threads = line.split()
        now += 1 if word == "start" else -1
        most = max(most, now)
        assert threads == "2"
    assert most <= 3


@pytest.mark.parametrize(
    ("listed", "parallel", "expected"),
    [(None, 2, {"0", "1"}), ("5,GPU-8a", 2, {"5", "GPU-8a"}), (None, 3, {"0", "1"}), (None, 1, {"None"})],
)
def test_processes_at_once_take_a_gpu_each(
    listed: str | None, parallel: int, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = (
        "import os, time\ngpu = str(os.environ.get('CUDA_VISIBLE_DEVICES'))\n"
        "(RUN / 'gpu').write_text(gpu)\nwhile len(list(RUN.parent.glob('*/gpu'))) < COUNT: time.sleep(0.01)\n" + FINISH
    )
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    # the first ones wait for each other, so that they are there at once
    texts = [note.replace("COUNT", str(parallel if number < parallel else 0)) for number in range(4)]
    assert run_missing(programs(tmp_path, monkeypatch, *texts), parallel, poll=0.01) == []
    assert {(tmp_path / str(number) / "gpu").read_text() for number in range(parallel)} == expected
    assert {path.read_text() for path in tmp_path.glob("*/gpu")} <= expected


def test_a_job_that_names_its_devices_sees_all_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    note = "import os\n(RUN / 'gpu').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n" + FINISH
    wanted = [
        replace(job, config="trainer: {max_epochs: 2, devices: 2}") for job in programs(tmp_path, monkeypatch, note)
    ]
    assert run_missing(wanted, parallel=2, poll=0.01) == []
    assert (tmp_path / "0" / "gpu").read_text() == "0,1,2,3"


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Return whether a process has ended, though nobody may have asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_the_processes_of_the_jobs(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = programs(tmp_path, monkeypatch, SLEEP, SLEEP)
    child = os.fork()
    if child == 0:
        try:
            run_missing(wanted, parallel=2, poll=0.01)
        except Stopped as stop:
            os._exit(int(stop.args[0]))
        finally:
            os._exit(99)
    files = [job.run / "pid" for job in wanted]
    wait_for(lambda: all(file.is_file() and file.read_text() for file in files))
    os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    assert (os.WTERMSIG(status) if number == signal.SIGKILL else os.WEXITSTATUS(status)) == number
    wait_for(lambda: all(gone(int(file.read_text())) for file in files))


def test_progress_counts_epochs(tmp_path: Path) -> None:
    job = Job(Training("m", 1, 0, ()), tmp_path / "run", "trainer: {max_epochs: 4}", ())
    assert job.epochs_done == 0
    write_text(job.run / "metrics.csv", "step,epoch,train_loss,val_war\n3,0,,0.5\n5,1,1.0,\n7,1,,0.25\n9,2,0.5,\n")
    assert job.epochs_done == 2
    display = jobs.Display([job, Job(Training("m", 2, 0, ()), tmp_path / "other", job.config, ())])
    display.started(job)
    whole, one = display.progress.tasks
    assert (whole.completed, whole.total) == (2, 8)
    assert (one.completed, one.total) == (2, 4)
    (job.run / "metrics.csv").write_text((job.run / "metrics.csv").read_text() + "11,2,,0.5\n")
    display.update(job)
    assert (whole.completed, one.completed) == (3, 3)


def test_the_job_list_is_what_an_array_job_runs(
    dfew_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands, _ = listed(command(tmp_path / "my runs", dfew_root, "--folds", "2-3"), capsys)
    words = [shlex.split(line) for line in commands]
    assert [line[line.index("--data.fold") + 1] for line in words] == ["2", "3"]
    assert all(line[:4] == [sys.executable, "-m", "dfer_zoo", "fit"] for line in words)
    (tmp_path / "jobs.txt").write_text("".join(f"{line}\n" for line in commands))
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for task in (1, 2, 3):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        script = ["bash", "experiments/slurm.sh", tmp_path / "jobs.txt"]
        done = subprocess.run(script, capture_output=True, text=True, timeout=60)
        if task < 3:
            assert done.stdout.splitlines() == words[task - 1]
        else:
            assert (done.returncode, done.stdout) == (2, "")
            assert "submit --array=1-2" in done.stderr


@pytest.mark.slow
def test_killed_processes_continue_to_the_same_predictions(dfew_root: Path, tmp_path: Path) -> None:
    def start(runs: str, *more: str) -> subprocess.Popen:
        words = command(tmp_path / runs, dfew_root, "--trainer.max_epochs=20", *more)
        return subprocess.Popen([sys.executable, "-m", "dfer_zoo", *words])

    assert start("whole", "--folds", "2").wait(600) == 0
    folder = tmp_path / "parts" / "r3d_18-dfew"
    done, interrupted = (folder / name for name in ("fold1-seed0", "fold2-seed0"))
    for number, epochs in ((signal.SIGKILL, 1), (signal.SIGTERM, 8)):
        killed = start("parts", "--folds", "1-2")
        metrics = interrupted / "metrics.csv"
        wait_for(lambda: metrics.is_file() and pd.read_csv(metrics)["epoch"].max() >= epochs)  # noqa: B023
        killed.send_signal(number)
        assert killed.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
        assert not (interrupted / "cost.json").is_file()
    finished_at = (done / "cost.json").stat().st_mtime_ns
    assert start("parts", "--folds", "1-2").wait(600) == 0
    assert (done / "cost.json").stat().st_mtime_ns == finished_at
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [done.name, interrupted.name]
    log = " ".join((interrupted / "fit.log").read_text().split())
    assert log.count("Continuing the interrupted run") == 2
    predictions = interrupted.relative_to(tmp_path / "parts") / "evaluations" / "test-best_val.csv"
    assert (tmp_path / "parts" / predictions).read_text() == (tmp_path / "whole" / predictions).read_text()
