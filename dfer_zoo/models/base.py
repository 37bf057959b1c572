"""The loop that every model shares; a paper overrides `losses` and, if it must, `optimizer`."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MetricCollection

from dfer_zoo.data.base import Batch
from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.losses import cross_entropy, intensity_aware_loss
from dfer_zoo.metrics import UAR, WAR
from dfer_zoo.nets import NetOutput
from dfer_zoo.nets.inference import store_channels_last
from dfer_zoo.nets.recompute import recompute_activations

DIVERGED = (
    "What was saved before is intact, but the same words would come here again. Add --model.lr with a lower value, or "
    "--trainer.precision 32-true, to start a new run; with --ckpt_path RUN/checkpoints/last.ckpt it continues from "
    "there."
)
"""What to do when numbers are not finite any more."""


class DFERModel(L.LightningModule):
    """A net with the recipe that trains it: AdamW, warm-up and cosine per step, cross entropy, WAR and UAR.

    Args:
        net: from normalised clips to `NetOutput`; its ``mean`` and ``std`` say how clips are normalised.
        lr: learning rate after warm-up.
        min_lr: learning rate at the end.
        weight_decay: of AdamW, on all parameters.
        warmup_epochs: epochs of linear warm-up from 0; fractions allowed.
        label_smoothing: of the cross entropy, in [0, 1).
        ial: weight of the intensity-aware loss (0 turns it off; its authors use 0.1).
        class_weighted: weigh a clip's cross entropy by the inverse of its class' training count.
        logit_adjustment: temperature of the logit adjustment for long-tailed sets (0 turns it off; 1 is usual).
        classifier_gain: factor of the classifier's initial weights. Recurrent layers and gates at their random start
            shrink what differs between clips about fifty times, so that a small training from scratch stays at chance
            for hundreds of steps; 30 brings the logits back to the scale of a plain backbone's.
        compile: run the net through torch.compile.
        recompute: keep only what passes between the backbone's stages and compute the rest again in the backward pass
            (activation checkpointing): less memory, on long clips above all, for another forward pass.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        lr: float = 5e-4,
        min_lr: float = 5e-6,
        weight_decay: float = 0.05,
        warmup_epochs: float = 20,
        label_smoothing: float = 0.1,
        ial: float = 0.0,
        class_weighted: bool = False,
        logit_adjustment: float = 0.0,
        classifier_gain: float = 1.0,
        compile: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.net = net
        if classifier_gain != 1:
            net.fc.weight.data.mul_(classifier_gain)
        store_channels_last(net)
        if compile and recompute:
            raise InputError("A compiled net decides itself what to recompute. Set model.compile or model.recompute.")
        if recompute:
            recompute_activations(net)
        if compile:
            self.net.compile()
        self.register_buffer("mean", torch.tensor(net.mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(net.std).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("class_counts", torch.zeros(len(EMOTIONS)))
        metrics = MetricCollection({"war": WAR(len(EMOTIONS)), "uar": UAR(len(EMOTIONS))})
        self.metrics = nn.ModuleDict({"val": metrics.clone("val_"), "test": metrics.clone("test_")})

    def normalize(self, video: Tensor) -> Tensor:
        """From uint8 clips ``(B, 3, T, H, W)`` to the floats that the net's weights expect."""
        return (video - 255 * self.mean) / (255 * self.std)

    def forward(self, video: Tensor) -> NetOutput:
        """Classify uint8 clips ``(B, 3, T, H, W)``."""
        return self.net(self.normalize(video))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the named terms of the training loss; ``loss`` is minimised, every term is logged."""
        return self.classification_losses(self(batch.video).logits, batch.label)

    def classification_losses(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return cross entropy, with the long-tail options, and the intensity-aware loss where it is on.

        Args:
            logits: ``(B, K)``.
            label: ``(B,)`` ids.

        Returns:
            ``ce``, ``ial`` where it is on, and ``loss``, their weighted sum.
        """
        terms = {"ce": cross_entropy(logits, label, self.hparams.label_smoothing, *self.long_tail())}
        terms["loss"] = terms["ce"]
        if self.hparams.ial:
            terms["ial"] = intensity_aware_loss(logits, label)
            terms["loss"] = terms["ce"] + self.hparams.ial * terms["ial"]
        return terms

    def long_tail(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the class weights and the logit adjustment ``(K,)``, each None where it is off.

        Class weights are inverse training counts, scaled so that their mean over the training clips is 1.
        """
        counts = self.class_counts
        present = counts > 0
        weights = adjustment = None
        if self.hparams.class_weighted:
            weights = counts.sum() / (present.sum() * counts.clamp(min=1))
        if self.hparams.logit_adjustment:
            adjustment = self.hparams.logit_adjustment * (counts.clamp(min=0.5) / counts.sum()).log()
        return weights, adjustment

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> NamedTuple:
        """Load the weights and class counts of a checkpoint.

        Raises:
            CheckpointError: names or shapes that are not this model's.
        """
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"The weights do not fit this version's {type(self).__name__}: {reason}") from error

    @property
    def compares_clips(self) -> bool:
        """Whether the loss of a clip depends on the others of its batch, as contrastive losses do."""
        return False

    def setup(self, stage: str) -> None:
        """Take the class counts of the training split from the data module."""
        if stage == "fit":
            self.class_counts.copy_(torch.tensor(self.trainer.datamodule.class_counts))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            InputError: a loss that is not finite; the message names the clips.
        """
        # a function of the step alone: a resumed run draws the same dropout, and so do both passes of SAM
        seed = self.step_seed(batch_idx % self.trainer.accumulate_grad_batches)
        if self.device.type == "cpu":  # torch.manual_seed keeps a call and its stack for each absent accelerator
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        terms = self.losses(batch)
        if not torch.isfinite(terms["loss"]):
            values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
            raise InputError(
                f"The loss is not finite at step {self.global_step} ({values}). Clips: {', '.join(batch.name)}. "
                f"{DIVERGED}"
            )
        logged = {f"train_{name}": value.detach() for name, value in terms.items()}
        self.log_dict(logged, batch_size=len(batch.name), sync_dist=True)  # the mean over devices
        return terms["loss"]

    def step_seed(self, part: int = 0) -> int:
        """Return the seed of what is random in the current training step on this device.

        Args:
            part: number of the batch among those whose gradients the step accumulates.
        """
        seed = self.trainer.datamodule.seed
        return (seed * 1_000_003 + self.global_step * 1009 + part * 10_000_019 + self.global_rank) % 2**63

    def evaluation_step(self, batch: Batch, split: str) -> dict[str, Tensor | list[str]]:
        """Update the metrics of a split; return names, labels and float32 logits for the predictions file."""
        logits = self(batch.video).logits.float()
        self.metrics[split].update(logits, batch.label)
        return {"name": batch.name, "label": batch.label, "logits": logits}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor | list[str]]:
        return self.evaluation_step(batch, ("val", "test")[dataloader_idx])

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor | list[str]]:
        return self.evaluation_step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor | list[str]]:
        return {"name": batch.name, "label": batch.label, "logits": self(batch.video).logits.float()}

    def on_validation_epoch_end(self) -> None:
        """Log ``val_war`` and ``val_uar`` over all clips on all devices; the test clips' too where they are scored."""
        for split, _ in zip(("val", "test"), self.trainer.num_val_batches, strict=False):
            self.log_epoch_metrics(split)

    def on_test_epoch_end(self) -> None:
        """Log ``test_war`` and ``test_uar`` over all clips on all devices."""
        self.log_epoch_metrics("test")

    def log_epoch_metrics(self, split: str) -> None:
        """Compute, log and reset the metrics of a split; torchmetrics has added up the devices' counts."""
        self.log_dict(self.metrics[split].compute(), prog_bar=split == "val")
        self.metrics[split].reset()

    def gather(self, x: Tensor) -> Tensor:
        """Return the global batch ``(devices * B, ...)`` of a tensor ``(B, ...)``, with gradients."""
        if self.trainer.world_size == 1:
            return x
        return self.all_gather(x, sync_grads=True).flatten(0, 1)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer over all parameters."""
        hp = self.hparams
        optimizer = torch.optim.AdamW(self.parameters(), lr=hp.lr, weight_decay=hp.weight_decay, fused=True)
        # fused AdamW declares that it undoes loss scaling itself, for which Lightning refuses to clip gradients in
        # mixed precision; without the declaration the loss is unscaled before
        optimizer._step_supports_amp_scaling = False
        return optimizer

    def configure_optimizers(self) -> dict:
        """Return the optimizer and its schedule, stepped per optimizer step.

        Raises:
            InputError: a training without an end.
        """
        optimizer = self.optimizer()
        parts = self.trainer.accumulate_grad_batches
        if parts > 1:
            contrastive = ", and the contrastive loss compares the clips of each" if self.compares_clips else ""
            rank_zero_warn(
                f"A step over {parts} accumulated batches is not that of one batch {parts} times as large: BatchNorm "
                f"normalises each by itself{contrastive}."
            )
        self.trainer.fit_loop.setup_data()  # without it, max_steps alone leaves the length of an epoch unknown
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise InputError("The schedule needs an end. Set trainer.max_epochs or trainer.max_steps.")
        warmup = self.hparams.warmup_epochs * self.trainer.num_training_batches / parts
        if warmup >= total:
            rank_zero_warn(
                f"The warm-up of {self.hparams.warmup_epochs:g} epochs ({warmup:.0f} steps) is not shorter than the "
                f"training ({total:.0f} steps): lr never reaches {self.hparams.lr:g}. Lower model.warmup_epochs."
            )
        floor = self.hparams.min_lr / self.hparams.lr
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, warmup, int(total), floor)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Continue at the learning rate that is asked for: the checkpoint's optimizer and schedule bring their own."""
        share = self.hparams.lr / checkpoint["hyper_parameters"]["lr"]
        for schedule in checkpoint.get("lr_schedulers", []):
            schedule["base_lrs"] = [share * lr for lr in schedule.get("base_lrs", [])]
        for optimizer in checkpoint.get("optimizer_states", []):
            for group in optimizer["param_groups"]:
                group |= {key: share * group[key] for key in ("lr", "initial_lr") if key in group}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add what a user of the checkpoint needs: class, labels, frame rule, input size, normalisation.

        Raises:
            InputError: weights that are not finite; the file to be replaced is left as it is.
        """
        broken = [name for name, value in self.state_dict().items() if not value.isfinite().all()]
        if broken:
            raise InputError(f"{broken[0]} is not finite after step {self.trainer.global_step}. {DIVERGED}")
        data = self.trainer.datamodule
        checkpoint["dfer_zoo"] = {
            "version": version("dfer-zoo"),
            "model": type(self).__name__,
            "labels": list(data.label_names),
            "frames": data.frames,
            "frame_rule": "centred",
            "size": data.size,
            "mean": list(self.net.mean),
            "std": list(self.net.std),
            "data": type(data).__name__,
            "generated": data.generated,
        }


def warmup_cosine(step: int, warmup: float, total: int, floor: float) -> float:
    """Return the share of the full learning rate at a step: linear warm-up from 0, then half a cosine.

    Args:
        step: optimizer steps taken so far.
        warmup: steps of warm-up.
        total: steps of the whole training.
        floor: share at the end, in 0..1.

    >>> [round(warmup_cosine(step, 2, 10, 0.01), 3) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.505, 0.01]
    """
    if step < warmup:
        return step / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
