"""What the contribution notes show is trained as it stands there."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_clip

import dfer_zoo
from dfer_zoo.__main__ import main
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.recipes import read_recipes
from dfer_zoo.runs import load_data

CHECKOUT = Path(__file__).parents[1]
NOTES = (CHECKOUT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", NOTES, re.DOTALL | re.MULTILINE))

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quick_measurement")]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the files of the notes and data for them."""
    (tmp_path / "experiments").mkdir()
    for shared in ("trainer.yaml", "quick.yaml"):
        (tmp_path / "experiments" / shared).symlink_to(CHECKOUT / "experiments" / shared)
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for label, emotion in enumerate(EMOTIONS):
        for part, clips in (("train", 3), ("test", 1)):
            for i in range(clips):
                write_clip(tmp_path / "data/folders" / part / emotion / f"clip{i}", ["1.jpg", "2.jpg"], label)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in ("tsn", "folders"):
        sys.modules.pop(module, None)


CONFIGS = [f"--config=experiments/{name}.yaml" for name in ("trainer", "data/folders", "model/tsn", "quick")]
SMALL = ["--data.size=32", "--data.workers=0", "--model.width=8", "--trainer.max_epochs=1"]
STEADY = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]


def test_the_notes_show_code_and_yaml_of_a_model_and_a_dataset() -> None:
    assert set(FILES) == {"tsn.py", "folders.py", "experiments/model/tsn.yaml", "experiments/data/folders.yaml"}


def test_the_new_model_is_trained_and_tested_on_the_new_dataset(example: Path) -> None:
    assert main(["fit", *CONFIGS, *SMALL, *STEADY, "--trainer.log_every_n_steps=1"]) == 0
    run = example / "runs" / "tsn-folders" / "all-seed0"
    assert json.loads((run / "evaluations" / "test-best_val.json").read_text())["clips"] == len(EMOTIONS)
    losses = pd.read_csv(run / "metrics.csv")[["train_ce", "train_size", "train_loss"]].dropna()
    assert losses["train_loss"].to_numpy() == pytest.approx(losses["train_ce"] + 0.01 * losses["train_size"])
    assert type(load_data(run)).__name__ == "Folders"
    assert type(dfer_zoo.load(run / "checkpoints" / "best_val.ckpt")).__name__ == "TSN"


def test_cross_validation_and_recipes_find_both(example: Path, pretend: list[str]) -> None:
    assert main(["crossval", "--model=tsn", "--data=folders", "--seeds=0-1", "--quick", *SMALL, *STEADY]) == 0
    assert len(pretend) == 2
    (recipe,) = read_recipes(example / "experiments", ["tsn"], "folders", quick=True)
    assert type(recipe.model()).__name__ == "TSN"
    assert type(recipe.data(example / "data/folders", batch=4)).__name__ == "Folders"


def test_the_notes_name_only_what_exists() -> None:
    for path in re.findall(r"`((?:dfer_zoo|tests|experiments|\.ci)/[\w./]*)`", NOTES):
        assert (CHECKOUT / path).exists(), path
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z][a-z-]*)", NOTES):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
