"""Exported models: files that say what the model says, say what they take, and run without this package."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from conftest import write_checkpoint
from films import BLUE, RED, find, scene, write_film
from onnx import TensorProto, helper
from torch import nn

from dfer_zoo import export as exporting
from dfer_zoo import models
from dfer_zoo.__main__ import main
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.export import ExportedModel, check, export, installed_runtimes, random_clips, smooth_clips
from dfer_zoo.models import HDF, M3DFEL, MICACL
from dfer_zoo.video.recognition import recognize

RECIPES = sorted((Path(__file__).parent.parent / "experiments" / "model").glob("*.yaml"))
SPEC = {"frames": 4, "size": 32}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = M3DFEL(frames=4, instances=2, width=4, pretrained=False, classifier_gain=30)
    with torch.no_grad():
        model.train()(random_clips(SPEC, 4))  # running statistics that are not the initial ones
    return write_checkpoint(tmp_path_factory.mktemp("export") / "best.ckpt", model)


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    export(checkpoint)
    return checkpoint.with_suffix(".onnx")


@pytest.mark.parametrize("runtime", installed_runtimes())
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_exported_model_answers_as_the_model(checkpoint: Path, exported: Path, runtime: str, batch: int) -> None:
    video = torch.randint(256, (batch, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = models.load(checkpoint)(video)
    given = ExportedModel(exported, runtime)(video)
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(given.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(given.features, expected.features, rtol=1e-4, atol=1e-4)


def test_load_gives_an_object_with_the_models_call_and_spec(checkpoint: Path, exported: Path) -> None:
    model, loaded = models.load(checkpoint), models.load(exported).to("cpu")
    assert isinstance(loaded, ExportedModel)
    assert model.spec.items() <= loaded.spec.items()
    assert loaded.spec["labels"] == list(EMOTIONS)
    assert loaded.spec["colour_order"] == "RGB"
    channels_last = torch.zeros(2, 4, 32, 32, 3, dtype=torch.uint8).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(loaded(channels_last).logits, model(channels_last).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_a_second_call_leaves_the_first_answer_alone(exported: Path, runtime: str) -> None:
    model = ExportedModel(exported, runtime)
    first = model(random_clips(SPEC, 2)).logits
    kept = first.clone()
    model(smooth_clips(SPEC, 2))
    assert torch.equal(first, kept)


SMALL = {
    "HDF": lambda: HDF(frames=4, size=32, width=16, depth_factor=0.5, pretrained=False, classifier_gain=30),
    "MICACL": lambda: MICACL(frames=4, instances=2, width=4, pretrained=False, classifier_gain=30),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_other_models_export_too(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint = write_checkpoint(tmp_path / "best.ckpt", SMALL[name]())
    assert main(["export", str(checkpoint), "--input", "float"]) == 0
    (given,) = onnxruntime.InferenceSession(tmp_path / "best.onnx").get_inputs()
    assert given.type == "tensor(float)"
    exported, video = models.load(tmp_path / "best.onnx"), smooth_clips(SPEC, 2)
    with torch.no_grad():
        expected = models.load(checkpoint)(video).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(exported(video).logits, expected, rtol=1e-3, atol=1e-3)
    assert exported.spec["input_type"] == "float"


def test_an_export_recognizes_videos(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", [scene((RED, 60, 60, 40), (BLUE, 120, 60, 30))] * 12)
    words = ["--checkpoint", str(exported), "--detector", "films:find", "--out", str(tmp_path / "out")]
    assert main(["recognize", str(film), *words]) == 0
    expected = recognize(film, models.load(checkpoint), detector=find)
    assert len(expected) == 2
    for person, rows in expected.groupby("person"):
        written = pd.read_csv(tmp_path / "out" / "film" / f"person{person}" / "timeline.csv")
        pd.testing.assert_frame_equal(written, rows.reset_index(drop=True), atol=1e-3, check_dtype=False)


def test_the_file_alone_says_what_it_takes(exported: Path) -> None:
    """Read by onnx and onnxruntime, as somebody without this package would."""
    graph = onnx.load(exported)
    onnx.checker.check_model(graph)
    spec = json.loads({entry.key: entry.value for entry in graph.metadata_props}["dfer_zoo"])
    assert (spec["model"], spec["frames"], spec["size"], spec["frame_rule"]) == ("M3DFEL", 4, 32, "centred")
    session = onnxruntime.InferenceSession(exported)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("video", "tensor(uint8)", ["batch", 3, 4, 32, 32])
    assert [(output.name, output.shape[0]) for output in session.get_outputs()] == [
        ("logits", "batch"),
        ("features", "batch"),
    ]


def test_clips_that_do_not_fit_are_refused(exported: Path) -> None:
    model = models.load(exported)
    with pytest.raises(
        InputError, match=r"takes uint8 clips \(B, 3, 4, 32, 32\); given were uint8 \(2, 3, 8, 32, 32\)"
    ):
        model(torch.zeros(2, 3, 8, 32, 32, dtype=torch.uint8))
    with pytest.raises(InputError, match="given were float32"):
        model(torch.zeros(2, 3, 4, 32, 32))


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_foreign_and_damaged_files_are_refused(exported: Path, tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(CheckpointError, match="There is no file"):
        ExportedModel(path, runtime)
    path.write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=f"no ONNX file that {runtime} can run"):
        ExportedModel(path, runtime)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(CheckpointError, match="was not exported by dfer-zoo"):
        ExportedModel(path, runtime)


def test_without_a_runtime_the_message_says_what_to_install(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"runtime for ONNX is not installed: pip install 'dfer-zoo\[onnx\]'"):
        models.load(exported)
    monkeypatch.setattr(exporting, "find_spec", lambda name: name == "onnxruntime" or None)
    with pytest.raises(InputError, match="openvino is not installed"):
        ExportedModel(exported, "openvino")
    assert ExportedModel(exported).runtime == "onnxruntime"
    with pytest.raises(InputError, match=r"needs onnx, onnxscript: pip install 'dfer-zoo\[onnx\]'"):
        export(Path("any.ckpt"))


LOAD_ALONE = """
import json, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [place for place in sys.path if place != sys.argv[3]]
import torch
extra = {"dfer_zoo.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra).module()
logits, features = program(torch.load(sys.argv[2]))
try:
    import dfer_zoo
except ImportError:
    torch.save((logits.detach(), features.detach(), json.loads(extra["dfer_zoo.json"])), sys.argv[2])
"""


def test_a_torch_export_runs_without_this_package(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    assert main(["export", str(checkpoint), "--format", "torch", "--input", "float", "--out", str(path)]) == 0
    with pytest.raises(CheckpointError, match=r"is for torch\.export\.load"):
        models.load(path)
    video = random_clips(SPEC, 3)
    torch.save(video.float(), tmp_path / "exchange")
    repository = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", LOAD_ALONE, str(path), str(tmp_path / "exchange"), repository]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120, capture_output=True)
    logits, features, spec = torch.load(tmp_path / "exchange")
    with torch.no_grad():
        expected = models.load(checkpoint)(video)
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(features, expected.features)
    assert spec["labels"] == list(EMOTIONS)
    assert "normalised inside" in spec["input"]


@pytest.mark.parametrize("wrong", [lambda logits: logits + 1, lambda logits: logits * torch.nan])
def test_an_export_that_says_something_else_is_refused(checkpoint: Path, wrong: Callable) -> None:
    model = models.load(checkpoint)
    assert check(model, model, "it") == 0
    with pytest.raises(CheckpointError, match="it does not say what the model says: on random clips in a batch of 1"):
        check(model, lambda video: [wrong(model(video).logits)], "it")
    with pytest.raises(CheckpointError, match="on smooth clips in a batch of 3"):
        check(model, lambda video: [model(video).logits + (video.float().std() < 70) * (len(video) == 3)], "it")


def test_a_refused_export_leaves_no_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "trace", lambda model, dtype: b"graph")
    monkeypatch.setattr(exporting, "write_torch", lambda program, spec, path: path.write_bytes(program))
    monkeypatch.setattr(
        exporting, "read_back", lambda path, dtype: {"torch": lambda video: [torch.zeros(len(video), 7)]}
    )
    with pytest.raises(CheckpointError, match="Nothing was written"):
        export(checkpoint, "torch", tmp_path / "new" / "model.pt2")
    assert list((tmp_path / "new").iterdir()) == []


def test_bad_words_are_refused(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its name must end with \.onnx"):
        export(checkpoint, out=tmp_path / "model.pt")
    with pytest.raises(InputError, match="is an export already"):
        export(exported)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"model\.pt2 could not be written.*--out"):
        export(checkpoint, "torch", tmp_path / "file" / "model.pt2")
    assert main(["export", str(tmp_path / "none.ckpt")]) == 2


def test_smooth_clips_are_smooth_and_random_ones_are_not() -> None:
    spec = {"frames": 8, "size": 48}
    steps = {
        clips: np.abs(np.diff(clips(spec, 2).numpy().astype(int), axis=axis)).mean()
        for clips in (smooth_clips, random_clips)
        for axis in (2, 3, 4)
    }
    assert steps[smooth_clips] < 20 < steps[random_clips]
    assert all(clips(spec, 2).shape == (2, 3, 8, 48, 48) for clips in steps)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_exports_at_full_width(recipe: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(recipe.read_text())["model"]
    options = {**config.get("init_args", {}), "pretrained": False, "classifier_gain": 30}
    torch.manual_seed(0)
    model = getattr(models, config["class_path"].rpartition(".")[2])(**options)
    spec = {"frames": 16, "size": 160 if isinstance(model, HDF) else 112}
    for module in model.modules():  # a net whose layers all matter, as after a training
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.cat([smooth_clips(spec, 2), random_clips(spec, 2)]))
        logits = model.eval()(random_clips(spec, 1)).logits - model(smooth_clips(spec, 1)).logits
    assert logits.abs().max() > 0.05
    checkpoint = write_checkpoint(tmp_path / "model.ckpt", model, **spec)
    for format in exporting.SUFFIXES:
        export(checkpoint, format)  # compares the file with the model, or raises
