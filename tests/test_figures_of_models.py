"""Figures that run a model: Grad-CAM and loss surfaces against slow references, and the command that draws all."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import fit_quietly
from test_figures import write_tested_run
from torch import nn

from dfer_zoo import figures
from dfer_zoo.__main__ import main
from dfer_zoo.data import DFEW
from dfer_zoo.errors import InputError
from dfer_zoo.figures.command import figures as draw
from dfer_zoo.figures.drawings import DRAWINGS, labelled_clips, spread
from dfer_zoo.figures.heatmaps import grad_cam, last_stage
from dfer_zoo.figures.landscape import filter_normalised, random_direction, training_clips
from dfer_zoo.figures.trained import Trained
from dfer_zoo.models import MICACL, Baseline
from dfer_zoo.nets import BaselineNet, HDFNet, M3DFELNet, MICACLNet
from dfer_zoo.results import load_run
from dfer_zoo.runs import write_text

NETS = {
    "r3d_18": lambda: BaselineNet("r3d_18", frames=4, width=8),
    "x3d_s": lambda: BaselineNet("x3d_s", frames=4, width=16),
    "resnet18_lstm": lambda: BaselineNet("resnet18_lstm", frames=4, width=8),
    "m3dfel": lambda: M3DFELNet(instances=2, frames=4, width=8),
    "m3dfel of frames": lambda: M3DFELNet(instances=4, frames=4, width=8),
    "micacl": lambda: MICACLNet(instances=2, frames=4, width=8),
    "hdf": lambda: HDFNet(frames=4, size=32, width_factor=0.5, depth_factor=0.5),
}


@pytest.mark.parametrize("name", NETS)
def test_grad_cam_is_the_weighted_sum_of_the_last_maps(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    video, target = torch.randn(2, 3, 4, 32, 32), torch.tensor([1, 5])
    kept = []
    handle = last_stage(net).register_forward_hook(lambda module, given, maps: kept.append(maps))
    logits = net(video).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 1] + logits[1, 5], kept[0])
    parts = len(kept[0]) // len(video)
    expected = torch.zeros(2, 4, 32, 32)
    for clip in range(2):
        for part in range(parts):
            maps, slopes = kept[0][clip * parts + part], gradient[clip * parts + part]
            found = sum(slope.mean() * each for slope, each in zip(slopes, maps, strict=True)).relu()
            found = found if found.ndim == 3 else found[None]
            large = F.interpolate(found[None, None], (4 // parts, 32, 32), mode="trilinear")[0, 0]
            expected[clip, part * 4 // parts : (part + 1) * 4 // parts] = large
    found = grad_cam(net, video, target)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


def test_grad_cam_needs_a_backbone_it_knows() -> None:
    with pytest.raises(InputError, match="Linear has no backbone"):
        last_stage(nn.Linear(2, 2))


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (2, 3, 1, 2, 2)])
def test_filters_of_a_direction_get_the_norms_of_the_weights(shape: tuple[int, ...]) -> None:
    direction, weight = torch.randn(2, *shape)
    weight[1] = 0  # a dead filter does not move
    found = filter_normalised(direction, weight)
    for drawn, filter_, scaled in zip(direction, weight, found, strict=True):
        expected = drawn * filter_.square().sum().sqrt() / drawn.square().sum().sqrt()
        torch.testing.assert_close(scaled, expected)


def test_directions_are_the_seeds_and_leave_biases_alone() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    first, again, other = (random_direction(net, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert [direction.abs().sum().item() > 0 for direction in first] == [True, False, False, False]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, dfew_root: Path) -> dict[str, Path]:
    """Two runs of two steps each, a net of the whole clip and one of a bag, with predictions that are made up."""
    found = {}
    folder = tmp_path_factory.mktemp("runs")
    common = {"frames": 4, "width": 8, "pretrained": False, "warmup_epochs": 0}
    for name, model in {"r3d_18": Baseline(**common), "micacl": MICACL(instances=2, **common)}.items():
        run, _ = write_tested_run(folder / f"{name}-dfew" / "fold1-seed0", dfew_root)
        data = DFEW(str(dfew_root), frames=4, size=32, batch_size=8, workers=0)
        trainer = fit_quietly(model, data, max_epochs=1, limit_train_batches=2, limit_val_batches=0)
        trainer.save_checkpoint(run / "checkpoints" / "best_val.ckpt")
        write_text(run / "metrics.csv", "step,epoch,train_ce,val_war,val_uar\n0,0,2.0,,\n1,0,1.5,0.4,0.3\n")
        found[name] = run
    return found


@pytest.fixture
def own_run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a run that a test may damage."""
    return Path(shutil.copytree(runs["r3d_18"], tmp_path / "r3d_18-dfew" / "fold1-seed0"))


def test_the_surface_is_the_loss_of_moved_weights(runs: dict[str, Path]) -> None:
    trained = Trained.load(load_run(runs["micacl"]))
    model = trained.model
    clips = training_clips(trained, 6, seed=0)
    assert sum(len(batch.name) for batch in clips) == 6
    assert not set(clips[0].name) & set(trained.data.clips("test")["name"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    surface = figures.loss_surface(model, clips, points=3, radius=0.5, seed=7)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def loss(x: float, y: float) -> float:
        moved = Trained.load(load_run(runs["micacl"])).model
        with torch.no_grad():
            directions = (random_direction(moved.net, 7), random_direction(moved.net, 8))
            for weight, first, second in zip(moved.net.parameters(), *directions, strict=True):
                weight += x * first + y * second
            logits = torch.cat([moved(batch.video).logits for batch in clips])
        return F.cross_entropy(logits, torch.cat([batch.label for batch in clips])).item()

    assert surface.shape == (3, 3)
    assert surface[1, 1] == pytest.approx(loss(0, 0), rel=1e-5)
    assert surface[0, 2] == pytest.approx(loss(0.5, -0.5), rel=1e-4)
    assert surface[2, 1] == pytest.approx(loss(0, 0.5), rel=1e-4)


def test_weights_are_put_back_when_a_surface_is_interrupted(runs: dict[str, Path]) -> None:
    trained = Trained.load(load_run(runs["r3d_18"]))
    before = [parameter.clone() for parameter in trained.model.net.parameters()]

    def interrupted(points, description):
        yield points[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        figures.loss_surface(trained.model, training_clips(trained, 2, 0), points=3, track=interrupted)
    assert all(torch.equal(a, b) for a, b in zip(before, trained.model.net.parameters(), strict=True))


def test_outputs_over_clips_are_those_of_one_clip_at_a_time(runs: dict[str, Path]) -> None:
    trained = Trained.load(load_run(runs["r3d_18"]))
    dataset = trained.data.dataset("test")
    names = dataset.names[::-1][:9]
    found = trained.over(names, lambda video: trained.model.net(video).features, lambda items, _: items, "features")
    for name, row in zip(names, found, strict=True):
        clip = torch.from_numpy(dataset.clip(dataset.names.index(name))).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            np.testing.assert_allclose(row, trained.model(clip).features[0], rtol=1e-4, atol=1e-5, equal_nan=False)


def test_clips_are_spread_over_the_test_set(runs: dict[str, Path]) -> None:
    assert spread("abcdefghi", 3) == ["a", "e", "i"]
    assert spread("abc", 9) == ["a", "b", "c"]
    run = load_run(runs["r3d_18"])
    names, ids = labelled_clips(run, 5)
    known = run.predictions.set_index("clip")["label"]
    assert len(names) == 5
    assert ids.tolist() == known[names].tolist()


QUICK = {"landscape_points": 3, "landscape_clips": 4, "shown": 2}


def test_the_command_draws_all_that_applies(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(list(runs.values()), tmp_path, **QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in DRAWINGS}
    printed = capsys.readouterr().out
    assert printed.count("Figure: ") == len(DRAWINGS)
    assert "Skipped instances of r3d_18: the model sees a clip as a whole, not as a bag of instances" in printed
    assert "Skipped interaction of r3d_18: the model has neither GEIIM nor WIAN's weights of instances" in printed
    assert printed.count("Skipped") == 2


def test_one_run_is_drawn_into_its_own_folder(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", str(own_run), "--only", "curves,recalls", "--format", "pdf"]) == 0
    assert {path.name for path in (own_run / "figures").iterdir()} == {"curves.pdf", "recalls.pdf"}
    assert "Skipped" not in capsys.readouterr().out


def test_a_run_without_its_checkpoint_is_drawn_as_far_as_possible(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(own_run / "checkpoints")
    needy = ["tsne", "heatmaps", "instances", "interaction", "landscape"]
    draw([own_run], tmp_path / "out", only=",".join(["distribution", *needy]))
    printed = capsys.readouterr().out
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"distribution"}
    for name in needy:
        assert f"Skipped {name} of r3d_18-dfew/fold1-seed0: {own_run} has no checkpoint" in printed


def test_a_run_whose_data_is_gone_is_drawn_as_far_as_possible(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = own_run / "config.yaml"
    write_text(config, config.read_text().replace("root: '", "root: '/nowhere"))
    draw([own_run], tmp_path / "out", only="recalls,distribution,tsne,landscape")
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"recalls"}
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Skipped")]
    assert len(lines) == 3
    assert all("/nowhere" in line for line in lines)


def test_runs_of_other_test_clips_share_no_pictures_of_clips(
    runs: dict[str, Path], own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = own_run / "evaluations" / "test-best_val.json"
    write_text(scores, scores.read_text().replace('"test_set": "', '"test_set": "0'))
    draw([runs["r3d_18"], own_run], tmp_path / "out", only="recalls,tsne")
    printed = capsys.readouterr().out
    assert f"Skipped tsne of {own_run}: it was tested on other clips than r3d_18-dfew/fold1-seed0" in printed
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"recalls", "tsne"}


@pytest.mark.parametrize(
    ("damage", "words", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), [], "no run folder"),
        (lambda run: (run / "cost.json").unlink(), [], "not finished"),
        (lambda run: shutil.rmtree(run / "checkpoints"), ["--only", "tsne"], "None of these figures"),
        (lambda run: None, ["--only", "curves,tsn"], "There is no figure 'tsn'. There are: confusion, recalls"),
        (lambda run: None, ["--landscape_points", "4"], "landscape_points is 4; allowed: odd numbers"),
        (lambda run: None, ["--shown", "0"], "shown is 0; allowed: 1 or more"),
        (lambda run: None, ["--landscape_radius", "0"], "landscape_radius is 0"),
        (lambda run: None, ["--tsne_clips", "0"], "tsne_clips is 0"),
        (lambda run: None, ["--landscape_clips", "0"], "landscape_clips is 0"),
    ],
)
def test_wrong_input_is_one_line(
    own_run: Path, damage, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(own_run)
    assert main(["figures", str(own_run), *words]) == 2
    error = capsys.readouterr().err
    assert message in error.replace("\n", " ")
    assert "Traceback" not in error
