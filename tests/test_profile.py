"""Cost of a model, against counts by hand."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dfer_zoo.__main__ import main
from dfer_zoo.models import M3DFEL, Baseline
from dfer_zoo.profile import (
    HeldBatches,
    Rounds,
    clips_per_second,
    count_macs,
    flops_inside,
    in_own_process,
    measure_cost,
    step_memory,
    train_steps,
)
from dfer_zoo.recipes import Recipe, read_recipes

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


def macs_by_hooks(model: nn.Module, frames: int, size: int) -> int:
    """Count convolutions and linear layers from the shapes they see."""
    count = 0

    def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal count
        if isinstance(module, nn.Conv3d):
            count += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            count += output.numel() * module.in_features

    hooks = [module.register_forward_hook(hook) for module in model.modules()]
    model.eval()(torch.zeros(1, 3, frames, size, size, dtype=torch.uint8))
    for handle in hooks:
        handle.remove()
    return count


def test_macs_are_those_of_the_layers() -> None:
    model = Baseline("r3d_18", frames=4, width=8, pretrained=False)
    assert count_macs(model, 4, 32) == macs_by_hooks(model, 4, 32)


def test_padding_for_bf16_costs_nothing_in_the_count() -> None:
    model = Baseline("r3d_18", frames=2, width=8, pretrained=False)
    assert count_macs(model, 2, 32) == macs_by_hooks(model, 2, 32)


def test_the_lstm_is_counted() -> None:
    options = {"frames": 16, "width": 4, "pretrained": False}
    with_lstm, without = (count_macs(M3DFEL(lstm=lstm, mhsa=False, **options), 16, 32) for lstm in (True, False))
    hidden, instances = 32, 4
    layers = 4 * hidden * (hidden + hidden) + 4 * hidden * (2 * hidden + hidden)  # first and second, one direction
    twice_as_wide = instances * hidden * 3 + hidden * 7  # aggregation and classifier of both directions' states
    assert with_lstm - without == 2 * instances * layers + twice_as_wide


def test_attention_is_counted() -> None:
    options = {"frames": 16, "width": 4, "lstm": False, "pretrained": False}
    with_attention, without = (count_macs(M3DFEL(mhsa=mhsa, **options), 16, 32) for mhsa in (True, False))
    features, instances = 32, 4
    projection, products = instances * features * 3 * features, 2 * instances * instances * features
    assert with_attention - without == projection + products


def test_published_gmacs_of_m3dfel() -> None:
    """R3D-18 on 16 frames of 112 pixels, in four instances; the design's 43 GMACs by another counter."""
    assert count_macs(M3DFEL(pretrained=False), 16, 112) / 1e9 == pytest.approx(43, rel=0.06)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(training: bool) -> None:
    model = Baseline("r3d_18", frames=4, width=8, pretrained=False).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, 4, 32)
    assert clips_per_second(model, 4, 32, Precision(), batch=2, seconds=0.0) > 0
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_cost_names_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfer_zoo.profile.clips_per_second", lambda *_: 5.0)
    model = Baseline("r3d_18", frames=4, width=8, pretrained=False)
    cost = measure_cost(model, SimpleNamespace(frames=4, size=32), MixedPrecision("bf16-mixed", "cpu"))
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    assert cost["gmacs_per_clip"] == count_macs(model, 4, 32) / 1e9
    assert (cost["inference_clips_per_second"], cost["frames"], cost["size"], cost["device"]) == (5.0, 4, 32, "cpu")
    assert cost["precision"] == "bf16-mixed"


def test_inference_is_measured_in_the_precision_of_the_training() -> None:
    model = Baseline("r3d_18", frames=4, width=8, pretrained=False)
    seen = set()
    model.net.fc.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    clips_per_second(model, 4, 32, MixedPrecision("bf16-mixed", "cpu"), batch=2, seconds=0.0)
    assert seen == {torch.bfloat16}


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [((3, 3, 3), 1, 1, 1, 1), ((3, 1, 2), (1, 2, 1), (1, 0, 1), (1, 1, 2), 1), ((1, 7, 7), 2, (0, 3, 3), 1, 2)],
)
def test_products_with_padding_can_be_left_out(
    kernel: tuple, stride: tuple | int, padding: tuple | int, dilation: tuple | int, groups: int
) -> None:
    """A product counts if it changes the output: with ones everywhere, the sum of the outputs is their number."""
    layer = nn.Conv3d(4, 6, kernel, stride, padding, dilation, groups, bias=False)
    nn.init.ones_(layer.weight)
    clip = torch.ones(1, 4, 2, 9, 7)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution: flops_inside})
    with counter, torch.no_grad():
        inside = layer(clip).sum().item()
    assert counter.get_total_flops() == 2 * inside


def test_no_padding_in_the_count_of_a_model() -> None:
    model = Baseline("r3d_18", frames=2, width=8, pretrained=False)
    assert count_macs(model, 2, 32, padding=False) < count_macs(model, 2, 32)


def test_a_recipe_is_merged_like_the_command_line_merges_it() -> None:
    (recipe,) = read_recipes(EXPERIMENTS, ["hdf"], "dfew", quick=True)
    model = recipe.model()
    assert recipe.shape == (8, 48)  # quick.yaml over model/hdf.yaml
    assert (model.hparams.width, model.hparams.rho, model.hparams.lr) == (32, 0.05, 4e-3)  # quick/hdf.yaml; hdf.yaml
    assert recipe.config["data"]["init_args"]["fold"] == 1
    assert (model.hparams.frames, model.hparams.size) == (8, 48)


def test_every_recipe_can_be_built() -> None:
    recipes = read_recipes(EXPERIMENTS, [], "ferv39k", quick=True)
    assert {recipe.name for recipe in recipes} == {path.stem for path in (EXPERIMENTS / "model").glob("*.yaml")}
    for recipe in recipes:
        clips = torch.zeros(1, 3, recipe.shape[0], recipe.shape[1], recipe.shape[1], dtype=torch.uint8)
        assert recipe.model().eval()(clips).logits.shape == (1, 7)


def test_the_recipes_precision_is_measured_beside_32_bits() -> None:
    def precisions(name: str) -> list[str]:
        return Recipe("x", {"trainer": {"precision": name}}).precisions

    assert precisions("32-true") == ["32-true"]
    assert precisions("bf16-mixed") == ["32-true", "bf16-mixed"]


@pytest.mark.parametrize(("model", "passes"), [("r3d_18", 1), ("hdf", 2)])
def test_a_round_times_the_step_with_all_its_passes(model: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfer_zoo.profile.peak_flops", lambda device, dtype: 1e9)
    (recipe,) = read_recipes(EXPERIMENTS, [model], "dfew", quick=True)
    built = recipe.model()
    before = [weight.clone() for weight in built.parameters()]
    ticks: list[int] = []
    clock = Rounds(lambda: ticks.append(1))
    train_steps(built, HeldBatches(*recipe.shape, batch=2, steps=3), "32-true", clock)
    assert clock.forward_passes == passes
    assert len(ticks) == 3
    assert len(clock.training) == len(clock.inference) == len(clock.peak) == 2
    assert min(clock.training) > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, built.parameters(), strict=True))


def test_profile_writes_a_row_for_every_model(
    dfew_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("dfer_zoo.profile.in_own_process", lambda function, *arguments: 2**30)
    words = ["--model=r3d_18,x3d_s", "--quick", "--batch=2", "--rounds=1", f"--experiments={EXPERIMENTS}"]
    assert main(["profile", *words, f"--root={dfew_root}", f"--out={tmp_path}"]) == 0
    table = pd.read_csv(tmp_path / "profile.csv")
    recipes = read_recipes(EXPERIMENTS, ["r3d_18", "x3d_s"], "dfew", quick=True)
    expected = [(recipe.name, precision) for recipe in recipes for precision in recipe.precisions]
    assert list(zip(table["model"], table["precision"], strict=True)) == expected
    speeds = [column for column in table if column.endswith(("per_second", "share_of_peak"))]
    assert len(speeds) == 5
    assert (table[speeds] > 0).all(axis=None)
    assert (table["gmacs_without_padding"] < table["gmacs_per_clip"]).all()
    assert (table["training_clips"] == 56).all()  # of 70, the others are the fold's test clips
    epochs = [recipe.config["trainer"]["max_epochs"] for recipe in recipes for _ in recipe.precisions]
    seconds = 0.9 * 56 / table["train_clips_per_second"] + 0.1 * 56 / table["inference_clips_per_second"]
    assert table["training_hours"].to_numpy() == pytest.approx(epochs * seconds / 3600)
    assert "8x48px" in capsys.readouterr().out


def test_hours_are_of_the_real_set_where_no_other_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {"train_clips_per_second": 93.56, "inference_clips_per_second": 187.12}
    monkeypatch.setattr("dfer_zoo.profile.measure_steps", lambda *_: {"model": "r3d_18", "precision": "x", **speeds})
    monkeypatch.setattr("dfer_zoo.profile.cost_table", lambda rows: "")
    monkeypatch.setattr("dfer_zoo.profile.data_clips_per_second", lambda *_: 1.0)
    monkeypatch.setattr("dfer_zoo.synthetic.synthesize", lambda *_, **__: tmp_path)
    assert main(["profile", "--model=r3d_18", f"--experiments={EXPERIMENTS}", f"--out={tmp_path}"]) == 0
    assert pd.read_csv(tmp_path / "profile.csv")["training_hours"].to_numpy() == pytest.approx(300 * 95 / 3600)


@pytest.mark.slow  # another process imports torch
def test_memory_of_a_step_grows_with_the_batch() -> None:
    (recipe,) = read_recipes(EXPERIMENTS, ["r3d_18"], "dfew", quick=True)
    small, large = (in_own_process(step_memory, recipe, "32-true", batch) for batch in (2, 34))
    clip = 8 * 48 * 48 * 16 * 4 / 4  # bytes of the stem's output, one of many maps kept for the backward pass
    assert large - small > 32 * clip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model=r3d"], "There is no model 'r3d'"),
        (["--experiments=nowhere"], "holds no model/*.yaml"),
        (["--batch=0"], "batch is 0; allowed: 1 or more"),
        (["--rounds=0"], "rounds is 0"),
        (["--data=clips"], "--root"),
    ],
)
def test_wrong_words(words: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["profile", f"--experiments={EXPERIMENTS}", *words]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
