"""What makes a training step faster or smaller changes nothing but rounding."""

import functools
from collections.abc import Callable

import pytest
import torch
from benchmarks.steps import as_plain_pytorch, random_batch
from conftest import fit_quietly
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dfer_zoo.data.base import Batch
from dfer_zoo.errors import InputError
from dfer_zoo.models import HDF, M3DFEL, MICACL, Baseline, DFERModel
from dfer_zoo.models import micacl as micacl_model
from dfer_zoo.nets.r3d import FULL_WIDTH

TINY = {"pretrained": False, "frames": 8, "warmup_epochs": 0, "lr": 1e-3}
MODELS = {
    **{
        name: lambda name=name, **options: Baseline(name, width=8, **TINY, **options)
        for name in ("r3d_18", "mc3_18", "r2plus1d_18", "resnet18_lstm")
    },
    "x3d_s": lambda **options: Baseline("x3d_s", width=FULL_WIDTH // 4, **TINY, **options),
    "m3dfel": lambda **options: M3DFEL(width=8, ial=0.1, **TINY, **options),
    "m3dfel of whole clips": lambda **options: M3DFEL(width=8, instances=1, **TINY, **options),
    "micacl": lambda **options: MICACL(width=8, **TINY, **options),
    "hdf": lambda **options: HDF(width=16, size=32, depth_factor=0.5, dropout=0.0, rho=0.0, **TINY, **options),
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micacl_model, "VIEW_DROPOUT", 0.0)


def make_model(name: str, **options: object) -> DFERModel:
    """Return a model in float64 whose every parameter has a gradient, for use without a Trainer."""
    torch.manual_seed(0)
    model = MODELS[name](**options)
    for key, parameter in model.named_parameters():
        if key.endswith("norm_c.weight"):  # X3D's blocks start as the identity
            nn.init.constant_(parameter, 0.5)
    model.class_counts.fill_(10)
    model.gather = lambda tensor: tensor
    return model.double()


def gradients(model: DFERModel, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad()
    model.losses(batch)["loss"].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= tolerance * max(gradient.norm(), 1e-6), name


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_a_plain_step(name: str) -> None:
    fast, batch = make_model(name), random_batch(4, 8, 32)
    plain = as_plain_pytorch(fast)
    expected = gradients(plain, batch._replace(video=batch.video.contiguous()))
    assert_close(gradients(fast, batch), expected)
    for (key, mine), theirs in zip(fast.net.named_buffers(), plain.net.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10, msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_maps_stay_channels_last(name: str) -> None:
    """A convolution that gets or gives another order in memory has it copied."""
    torch.manual_seed(0)
    model = MODELS[name]()
    other: list[str] = []

    def check(what: str, x: Tensor) -> None:
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        if x.ndim in formats and not x.is_contiguous(memory_format=formats[x.ndim]):
            other.append(f"{what} {tuple(x.shape)}")

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            check(f"input of {name}", inputs[0])
            check(f"output of {name}", output)
            output.register_hook(functools.partial(check, f"gradient of {name}"))

        return hook

    for key, module in model.net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d):
            module.register_forward_hook(watch(key))
    clips = 16  # torch convolves fewer by other kernels where it has a single thread
    model.net(model.normalize(random_batch(clips, 8, 32).video)).logits.sum().backward()
    assert other == []


@pytest.mark.parametrize("name", MODELS)
def test_recomputed_activations_give_the_same_gradients_and_statistics(name: str) -> None:
    kept, recomputed, batch = make_model(name), make_model(name, recompute=True), random_batch(4, 8, 32)
    assert_close(gradients(recomputed, batch), gradients(kept, batch))
    for (key, mine), theirs in zip(recomputed.named_buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12, msg=key)
    with torch.no_grad():
        assert torch.equal(recomputed.eval()(batch.video).logits, kept.eval()(batch.video).logits)


def test_recomputed_activations_are_not_kept() -> None:
    kept = []
    for recompute in (False, True):
        model, total = make_model("m3dfel", recompute=recompute), 0

        def count(x: Tensor) -> Tensor:
            nonlocal total
            total += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            model.losses(random_batch(4, 8, 32))
        kept.append(total)
    assert kept[1] < kept[0] / 2


def test_compiling_and_recomputing_exclude_each_other() -> None:
    with pytest.raises(InputError, match=r"model\.compile or model\.recompute"):
        MODELS["r3d_18"](compile=True, recompute=True)


def test_hdf_in_a_single_pass_is_not_compiled() -> None:
    """AOTAutograd's outputs are no ancestors of each other: the feature's gradient would miss the classifier's part."""
    with pytest.raises(InputError, match=r"rho is 0.*model\.compile: false"):
        MODELS["hdf"](compile=True)


class RandomClips(LightningDataModule):
    """Eight clips in batches of a size."""

    seed, class_counts = 0, [50, 20, 10, 10, 5, 3, 2]

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        whole = random_batch(8, 8, 32)
        parts = (slice(start, start + batch_size) for start in range(0, 8, batch_size))
        self.batches = [Batch(whole.video[part], whole.label[part], whole.name[part], {}) for part in parts]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)


class Record(Callback):
    """Let BatchNorm normalise by its running statistics, held still, and keep the gradients of the steps."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, model: DFERModel, *_: object) -> None:
        model.net.eval()

    def on_before_optimizer_step(self, trainer: Trainer, model: DFERModel, *_: object) -> None:
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters()})

    def on_train_batch_end(self, trainer: Trainer, model: DFERModel, *_: object) -> None:
        self.clipped = {name: p.grad.clone() for name, p in model.named_parameters()}


def train(name: str, batch_size: int, accumulate: int, **options: object) -> tuple[DFERModel, Record]:
    torch.manual_seed(0)
    model, record = MODELS[name](**options), Record()
    fit_quietly(
        model,
        RandomClips(batch_size),
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        precision="64-true",
        callbacks=[record],
    )
    return model, record


@pytest.mark.parametrize("name", ["m3dfel", "x3d_s"])
@pytest.mark.parametrize("batch_size", [4, 2])
def test_accumulated_batches_are_one_large_batch_but_for_batch_norm(name: str, batch_size: int) -> None:
    one, expected = train(name, 8, 1)
    parts, found = train(name, batch_size, 8 // batch_size)
    assert len(found.steps) == len(expected.steps) == 1
    assert_close(found.steps[0], expected.steps[0])
    for p, q in zip(parts.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("error:.*contrastive")
@pytest.mark.parametrize(("name", "options"), [("micacl", {"mccl": False}), ("hdf", {"dsm": False})])
def test_accumulation_is_exact_without_contrastive_loss_and_batch_norm(name: str, options: dict[str, bool]) -> None:
    assert_close(train(name, 4, 2, **options)[1].steps[0], train(name, 8, 1, **options)[1].steps[0])


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("m3dfel", r"BatchNorm normalises each by itself\."),
        ("micacl", "each by itself, and the contrastive loss compares the clips of each"),
        ("hdf", "each by itself, and the contrastive loss compares the clips of each"),
    ],
)
def test_accumulation_says_what_differs(name: str, differs: str) -> None:
    with pytest.warns(match=f"accumulated batches is not that of one batch 2 times as large: .*{differs}"):
        train(name, 4, 2)


def test_accumulated_batches_draw_their_own_dropout() -> None:
    seeds = []
    torch.manual_seed(0)
    model = MODELS["r3d_18"]()
    step_seed = model.step_seed
    model.step_seed = lambda part: seeds.append(step_seed(part)) or seeds[-1]
    fit_quietly(model, RandomClips(2), max_epochs=1, accumulate_grad_batches=2)
    assert len(set(seeds)) == 4


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_sam_trains_in_any_precision(precision: str, recompute: bool) -> None:
    torch.manual_seed(0)
    model = HDF(width=16, size=32, depth_factor=0.5, recompute=recompute, **TINY)
    trainer = fit_quietly(model, RandomClips(4), max_epochs=1, precision=precision, gradient_clip_val=1.0)
    assert trainer.global_step == 2
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["r3d_18", "m3dfel", "micacl"])
def test_gradients_are_clipped_in_bf16(name: str) -> None:
    """Lightning refuses to clip for torch's fused optimizers."""
    torch.manual_seed(0)
    model, record = MODELS[name](), Record()
    fit_quietly(model, RandomClips(8), max_epochs=1, precision="bf16-mixed", gradient_clip_val=1e-3, callbacks=[record])
    norms = [torch.nn.utils.get_total_norm(list(step.values())).item() for step in (record.steps[0], record.clipped)]
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_compiled_nets_give_eager_gradients(name: str) -> None:
    options, batch = {"dsm": False} if name == "hdf" else {}, random_batch(4, 8, 32)
    expected = gradients(make_model(name, **options), batch)
    torch._dynamo.reset()
    assert_close(gradients(make_model(name, compile=True, **options), batch), expected, tolerance=1e-9)
