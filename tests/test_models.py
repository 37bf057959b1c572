"""What every model shares: options, the schedule, checkpoints, and errors that name the clips."""

import math
import os
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from conftest import write_checkpoint
from hypothesis import assume, example, given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dfer_zoo import models
from dfer_zoo.data.base import Batch
from dfer_zoo.data.batches import ClipBatches
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.losses import intensity_aware_loss
from dfer_zoo.models import HDF, M3DFEL, MICACL, Baseline, DFERModel
from dfer_zoo.models.base import warmup_cosine

COUNTS = [50, 20, 10, 10, 5, 5, 0]
LABELS = torch.tensor([0, 0, 3, 5])
TINY = {
    "Baseline": lambda **kwargs: Baseline("r3d_18", frames=4, width=4, pretrained=False, **kwargs),
    "M3DFEL": lambda **kwargs: M3DFEL(frames=4, instances=2, width=4, pretrained=False, **kwargs),
    "MICACL": lambda **kwargs: MICACL(frames=4, instances=2, width=4, pretrained=False, **kwargs),
    "HDF": lambda **kwargs: HDF(frames=4, size=32, width=16, depth_factor=0.5, pretrained=False, **kwargs),
}

pytestmark = pytest.mark.filterwarnings("ignore")


class RandomClips(L.LightningDataModule):
    """Four batches of random clips, with the attributes that a model reads from a data module."""

    seed, frames, size, label_names, class_counts, generated = 0, 4, 32, EMOTIONS, COUNTS, True

    def batches(self) -> list[Batch]:
        video = torch.randint(
            0, 256, (4, 4, 3, 4, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
        )
        return [Batch(clips, LABELS, [f"clip {i}" for i in range(4)], {}) for clips in video]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches(), batch_size=None)

    val_dataloader = test_dataloader = train_dataloader


def make_trainer(folder: Path | None = None, callbacks: tuple[L.Callback, ...] = (), **options: object) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"max_epochs": 1, **options},
    )


def fit(model: DFERModel, **options: object) -> L.Trainer:
    trainer = make_trainer(**options)
    trainer.fit(model, RandomClips())
    return trainer


def losses_of(logits: Tensor, **options: object) -> dict[str, Tensor]:
    """Return the classification losses of four given predictions."""
    model = TINY["Baseline"](**{"label_smoothing": 0.0, **options})
    model.class_counts.copy_(torch.tensor(COUNTS))
    return model.classification_losses(logits, LABELS)


@pytest.mark.parametrize("name", TINY)
def test_a_checkpoint_gives_the_same_model_back(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TINY[name](warmup_epochs=0)
    trainer = fit(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = models.load(tmp_path / "model.ckpt")
    assert type(loaded) is type(model)
    assert not loaded.training
    video = RandomClips().batches()[0].video
    with torch.no_grad():
        assert torch.equal(loaded(video).logits, model.eval()(video).logits)
    spec = loaded.spec
    assert spec["model"] == name
    assert spec["labels"] == list(EMOTIONS)
    assert (spec["frames"], spec["size"]) == (4, 32)
    assert spec["mean"] == list(model.net.mean)
    assert (spec["data"], spec["generated"]) == ("RandomClips", True)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("recompute", [False, True])
def test_a_folded_model_says_the_same(name: str, recompute: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TINY[name](recompute=recompute)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):  # at its start a norm changes nothing
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = write_checkpoint(tmp_path / "model.ckpt", model)
    folded, whole = models.load(path, folded=True), models.load(path)
    assert folded.spec == whole.spec
    assert not any(isinstance(module, nn.BatchNorm3d) for module in folded.modules())
    video = RandomClips().batches()[0].video
    with torch.inference_mode():
        torch.testing.assert_close(folded(video).logits, whole(video).logits, rtol=1e-4, atol=1e-5)


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "best_val.ckpt"
    with pytest.raises(CheckpointError, match=r"There is no checkpoint .*best_val\.ckpt\. `ls runs"):
        models.load(path)
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match=r"best_val\.ckpt is no checkpoint of dfer-zoo"):
        models.load(path)
    with pytest.raises(CheckpointError, match=r"run is a run's folder. Name .*best_val\.ckpt"):
        models.load(tmp_path / "run")
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="not a file of PyTorch weights"):
        models.load(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"not a file of PyTorch weights \(EOFError\)"):
        models.load(path)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        *((None, key, value) for key in ("dfer_zoo", "state_dict", "hyper_parameters") for value in (None, 3)),
        *(("dfer_zoo", key, None) for key in ("labels", "frames", "size", "model", "version", "data")),
        ("state_dict", "net.fc.bias", None),
        ("state_dict", 3, 3),
        ("hyper_parameters", "width", "wide"),
        ("hyper_parameters", "width", 0),
        ("hyper_parameters", 3, 3),
    ],
)
def test_a_checkpoint_of_damaged_content_is_refused(
    part: str | None, key: str | int, value: object, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / "model.ckpt", TINY["Baseline"]())
    content = torch.load(path, weights_only=True)
    (content[part] if part else content)[key] = value
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"model\.ckpt"):
        models.load(path)


def test_checkpoint_of_an_unknown_or_other_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    fit(TINY["Baseline"]()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "dfer_zoo": {**content["dfer_zoo"], "model": "Former-DFER"}}, path)
    with pytest.raises(CheckpointError, match="holds a 'Former-DFER'"):
        models.load(path)
    state = {**content["state_dict"], "net.fc.bias": torch.zeros(3)}
    torch.save({**content, "state_dict": state}, path)
    with pytest.raises(CheckpointError, match="do not fit this version's Baseline"):
        models.load(path)


def test_a_checkpoint_with_a_setting_that_is_no_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    fit(TINY["Baseline"]()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["gone"] = 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"settings in .*model\.ckpt, made by version .*, are not .*'gone'"):
        models.load(path)


def test_a_checkpoint_of_other_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    fit(TINY["Baseline"]()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    labels = content["dfer_zoo"]["labels"][::-1]
    torch.save({**content, "dfer_zoo": {**content["dfer_zoo"], "labels": labels}}, path)
    with pytest.raises(CheckpointError, match="answers with the labels"):
        models.read_checkpoint(path)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    torch.save({"dfer_zoo": Trap()}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="not a file of PyTorch weights"):
        models.load(tmp_path / "model.ckpt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["pth", "DFERModel", "load", "Path"])
def test_a_checkpoint_cannot_name_what_is_no_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    fit(TINY["Baseline"]()).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "dfer_zoo": {**content["dfer_zoo"], "model": name}}, path)
    with pytest.raises(CheckpointError):
        models.load(path)


def test_class_weights_have_mean_one_over_the_training_clips() -> None:
    model = TINY["Baseline"](class_weighted=True)
    model.class_counts.copy_(torch.tensor(COUNTS))
    weights, adjustment = model.long_tail()
    counts = torch.tensor(COUNTS, dtype=torch.float)
    assert adjustment is None
    assert weights.isfinite().all()
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(50 / 20)


def test_class_weighted_loss_weighs_each_clip() -> None:
    logits = torch.randn(4, 7)
    each = F.cross_entropy(logits, LABELS, reduction="none")
    expected = sum(each[i] * 100 / (6 * COUNTS[label]) for i, label in enumerate(LABELS.tolist())) / 4
    assert losses_of(logits, class_weighted=True)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_logit_adjustment_adds_the_log_prior(temperature: float) -> None:
    logits = torch.randn(4, 7)
    priors = [max(count, 0.5) / 100 for count in COUNTS]
    total = 0.0
    for row, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        shifted = [z + temperature * math.log(p) for z, p in zip(row, priors, strict=True)]
        total += math.log(sum(map(math.exp, shifted))) - shifted[label]
    loss = losses_of(logits, logit_adjustment=temperature)["loss"]
    assert loss.item() == pytest.approx(total / 4, rel=1e-5)


def test_logit_adjustment_is_for_training_only() -> None:
    torch.manual_seed(0)
    plain = TINY["Baseline"]()
    torch.manual_seed(0)
    adjusted = TINY["Baseline"](logit_adjustment=1.0)
    adjusted.class_counts.copy_(torch.tensor(COUNTS))
    video = RandomClips().batches()[0].video
    assert torch.equal(plain.eval()(video).logits, adjusted.eval()(video).logits)


def test_intensity_aware_loss_is_added_by_its_weight() -> None:
    logits = torch.randn(4, 7)
    terms = losses_of(logits, ial=0.3)
    assert terms["loss"].item() == pytest.approx((terms["ce"] + 0.3 * intensity_aware_loss(logits, LABELS)).item())
    assert losses_of(logits).keys() == {"ce", "loss"}


@pytest.mark.parametrize("name", TINY)
def test_every_model_has_the_shared_options(name: str) -> None:
    options = {"ial": 0.1, "class_weighted": True, "logit_adjustment": 1.0, "label_smoothing": 0.2}
    trainer = fit(TINY[name](**options))
    assert {"train_ce", "train_ial", "train_loss", "val_war", "val_uar"} <= trainer.callback_metrics.keys()
    assert all(value.isfinite() for value in trainer.callback_metrics.values())


def test_balanced_sampling_draws_classes_alike() -> None:
    labels = torch.arange(7).repeat_interleave(torch.tensor([500, 200, 100, 100, 50, 30, 20])).numpy()
    batches = ClipBatches(labels, 50, training=True, balanced=True)
    drawn = torch.bincount(torch.tensor([labels[index] for batch in batches for _, index in batch]), minlength=7)
    assert drawn.sum() == 1000
    assert drawn.min() > 100  # 143 expected, standard deviation 11
    assert drawn.max() < 190


@given(total=st.integers(1, 500), share=st.floats(0, 0.9), floor=st.floats(0, 1))
@example(total=1, share=0.0, floor=0.0)
def test_schedule_rises_to_one_and_falls_to_its_floor(total: int, share: float, floor: float) -> None:
    warmup = share * total
    assume(total - warmup >= 1)
    rates = [warmup_cosine(step, warmup, total, floor) for step in range(total + 1)]
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    peak = math.ceil(warmup)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(floor)
    assert warmup_cosine(total + 10, warmup, total, floor) == pytest.approx(floor)


def test_schedule_follows_optimizer_steps_and_ends_at_min_lr() -> None:
    rates = []

    class Record(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = TINY["Baseline"](lr=1e-2, min_lr=1e-4, warmup_epochs=1)
    trainer = fit(model, callbacks=(Record(),), max_epochs=3)
    assert rates == pytest.approx([1e-2 * warmup_cosine(step, 4, 12, 0.01) for step in range(12)])
    assert rates[:5] == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01])
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)


@pytest.mark.parametrize("name", TINY)
def test_a_loss_that_is_not_finite_names_the_clips(name: str) -> None:
    model = TINY[name]()
    with torch.no_grad():
        model.net.fc.weight.fill_(torch.nan)
    with pytest.raises(InputError, match=r"not finite at step 0.*Clips: clip 0, clip 1, clip 2, clip 3"):
        fit(model)


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path: Path) -> None:
    class Spoil(L.Callback):
        def on_before_optimizer_step(self, trainer: L.Trainer, model: DFERModel, _: object) -> None:
            if trainer.global_step == 7:  # the last of the second epoch: its loss is still finite
                model.net.fc.weight.grad.fill_(torch.nan)

    saved = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    with pytest.raises(InputError, match=r"net\.fc\.weight is not finite after step 8\..*Add --model\.lr"):
        fit(TINY["Baseline"](), callbacks=(Spoil(), saved), max_epochs=3)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["global_step"] == 4
    assert all(value.isfinite().all() for value in content["state_dict"].values())


def test_a_checkpoint_continues_at_another_learning_rate(tmp_path: Path) -> None:
    """As if the lower rate had been the run's from the start: same place on the schedule, same moments."""
    rates: list[float] = []

    class Record(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def trained(lr: float, ckpt_path: Path | None = None) -> list[float]:
        rates.clear()
        saved = ModelCheckpoint(tmp_path / f"{lr}", filename="{step}", save_top_k=-1, every_n_train_steps=5)
        trainer = make_trainer(callbacks=(Record(), saved), max_epochs=2)
        model = TINY["Baseline"](lr=lr, min_lr=lr / 100, warmup_epochs=0.5)
        trainer.fit(model, RandomClips(), ckpt_path=ckpt_path)
        assert trainer.global_step == 8
        return rates[:]

    trained(1e-2)
    lower = trained(1e-3)
    assert trained(1e-3, tmp_path / "0.01" / "step=5.ckpt") == pytest.approx(lower[5:])


def test_moving_average_of_the_weights_is_validated_and_saved(tmp_path: Path) -> None:
    """Lightning's own callback, as yaml would name it: the checkpoint's weights are the average."""
    torch.manual_seed(0)
    model = TINY["Baseline"](warmup_epochs=0, lr=1e-2)
    steps: list[Tensor] = []

    class Record(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, module: DFERModel, *_: object) -> None:
            steps.append(module.net.fc.weight.detach().clone())

    saved = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    fit(model, callbacks=(EMAWeightAveraging(decay=0.5), Record(), saved))
    average = steps[0]
    for step in steps[1:]:
        average = 0.5 * average + 0.5 * step
    loaded = models.load(tmp_path / "last.ckpt")
    torch.testing.assert_close(loaded.net.fc.weight, average)
    assert not torch.allclose(average, steps[-1])
    assert loaded.class_counts.tolist() == COUNTS


def test_dropout_is_a_function_of_the_step_alone() -> None:
    """Two trainings of the same seed are equal, whatever random numbers are drawn between their steps."""

    class Draw(L.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            torch.rand(7)

    weights = []
    for callbacks in ((), (Draw(),)):
        torch.manual_seed(0)
        model = Baseline("r3d_18", frames=4, width=4, dropout=0.5, pretrained=False, warmup_epochs=0)
        fit(model, callbacks=callbacks)
        weights.append(model.net.fc.weight.detach())
    assert torch.equal(*weights)


def test_normalisation_is_the_backbones() -> None:
    model = TINY["Baseline"]()
    video = torch.full((1, 3, 2, 2, 2), 255, dtype=torch.uint8)
    expected = [(1 - mean) / std for mean, std in zip(model.net.mean, model.net.std, strict=True)]
    assert model.normalize(video)[0, :, 0, 0, 0].tolist() == pytest.approx(expected)


def test_max_steps_alone_give_the_schedule_an_end() -> None:
    trainer = fit(TINY["Baseline"](warmup_epochs=0, lr=1e-3, min_lr=1e-5), max_epochs=-1, max_steps=6)  # 1.5 epochs
    assert trainer.global_step == 6
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)
