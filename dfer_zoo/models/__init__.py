"""The models: what ``model:`` in yaml and ``MODEL=`` may name; one LightningModule, one recipe, a paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import CheckpointError
from dfer_zoo.models.base import DFERModel
from dfer_zoo.models.baselines import Baseline
from dfer_zoo.models.hdf import HDF
from dfer_zoo.models.m3dfel import M3DFEL
from dfer_zoo.models.micacl import MICACL
from dfer_zoo.nets.inference import for_inference
from dfer_zoo.nets.r3d import read_weights

if TYPE_CHECKING:
    from dfer_zoo.export import ExportedModel

__all__ = ["HDF", "M3DFEL", "MICACL", "Baseline", "DFERModel", "list_models", "load", "read_checkpoint"]


def list_models() -> dict[str, str]:
    """Return the models that can be trained: the name that ``MODEL=`` takes, and what it is.

    >>> for name, what in list_models().items():
    ...     print(f"{name:14}{what}")
    m3dfel        M3DFEL (CVPR 2023): R3D-18 on 3-D instances, BiLSTM and attention over them
    m3dfel_ial    M3DFEL with the intensity-aware loss
    micacl        MICACL (ISPA 2025): R3D-18 on 3-D instances, graph and weighted LSTM over them, contrastive loss
    hdf           HDF (ACM MM 2025): X3D-S with time-frequency attention, scaled losses and SAM
    r3d_18        R3D-18 (CVPR 2018): residual network with 3-D convolutions
    mc3_18        MC3-18 (CVPR 2018): 3-D convolutions in the first stage, 2-D in the others
    r2plus1d_18   R(2+1)D-18 (CVPR 2018): convolutions over space, then over time
    x3d_s         X3D-S (CVPR 2020): depthwise 3-D convolutions
    resnet18_lstm ResNet-18 on every frame, an LSTM over the frames
    """
    return {
        "m3dfel": "M3DFEL (CVPR 2023): R3D-18 on 3-D instances, BiLSTM and attention over them",
        "m3dfel_ial": "M3DFEL with the intensity-aware loss",
        "micacl": "MICACL (ISPA 2025): R3D-18 on 3-D instances, graph and weighted LSTM over them, contrastive loss",
        "hdf": "HDF (ACM MM 2025): X3D-S with time-frequency attention, scaled losses and SAM",
        "r3d_18": "R3D-18 (CVPR 2018): residual network with 3-D convolutions",
        "mc3_18": "MC3-18 (CVPR 2018): 3-D convolutions in the first stage, 2-D in the others",
        "r2plus1d_18": "R(2+1)D-18 (CVPR 2018): convolutions over space, then over time",
        "x3d_s": "X3D-S (CVPR 2020): depthwise 3-D convolutions",
        "resnet18_lstm": "ResNet-18 on every frame, an LSTM over the frames",
    }


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Read a checkpoint written in training, without running any code of the file.

    Raises:
        CheckpointError: no such file, damaged, not a checkpoint of this project, or one of other labels.
    """
    path = Path(checkpoint)
    best = path / "checkpoints" / "best_val.ckpt"
    if best.is_file():
        raise CheckpointError(f"{path} is a run's folder. Name the checkpoint in it: {best}.")
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}. `ls runs/*/*/checkpoints` shows yours.")
    content = read_weights(path)
    if "dfer_zoo" not in content:
        raise CheckpointError(f"{path} is no checkpoint of dfer-zoo. Expected a file made by `dfer-zoo fit`.")
    _demand(path, content, {"dfer_zoo": dict, "state_dict": dict, "hyper_parameters": dict})
    spec = content["dfer_zoo"]
    _demand(path, spec, {"version": str, "model": str, "data": str, "labels": list, "frames": int, "size": int})
    if tuple(spec["labels"]) != EMOTIONS:
        raise CheckpointError(f"{path} answers with the labels {spec['labels']}; this version has {list(EMOTIONS)}.")
    return content


def _demand(path: Path, content: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise CheckpointError(
                f"{path} is damaged: its {key} is {str(content.get(key))[:50]}, not of the type {kind.__name__}. Copy "
                "it again, or train again."
            )


def load(checkpoint: str | Path, *, folded: bool = False) -> "DFERModel | ExportedModel":
    """Load a trained model, on the CPU and in evaluation mode, without running any code of the file.

    Args:
        checkpoint: a file written in training, such as ``runs/m3dfel-dfew/fold1-seed0/checkpoints/best_val.ckpt``, or
            one that `dfer_zoo.export.export` made of it, ``best_val.onnx``.
        folded: fold BatchNorm into the convolutions before it: the same logits but for rounding in less time. Such a
            model can only predict: its weights are no longer those of the checkpoint.

    Returns:
        The model, called with uint8 clips ``(B, 3, T, H, W)``; ``model.spec`` holds its labels, frames, size and
        normalisation.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint of this project.
        InputError: an ONNX file, and no runtime for it is installed.
    """
    if Path(checkpoint).suffix == ".onnx":
        from dfer_zoo.export import ExportedModel

        return ExportedModel(checkpoint)
    if Path(checkpoint).suffix == ".pt2":
        raise CheckpointError(
            f"{checkpoint} is for torch.export.load, which may run code of the file. Load the checkpoint it was made "
            "of, or the export to ONNX."
        )
    content = read_checkpoint(checkpoint)
    spec = content["dfer_zoo"]
    classes = {model.__name__: model for model in _subclasses(DFERModel)}
    if spec["model"] not in classes:
        raise CheckpointError(
            f"{checkpoint} holds a {spec['model']!r}; this version knows {', '.join(classes)}. If it is yours, import "
            "its module first."
        )
    options = {key: value for key, value in content["hyper_parameters"].items() if not str(key).startswith("_")}
    if "pretrained" in options:
        options["pretrained"] = False
    try:
        model = classes[spec["model"]](**options)
    except Exception as error:  # whatever the values in the file lead to
        raise CheckpointError(
            f"The settings in {checkpoint}, made by version {spec['version']}, are not those of this version's "
            f"{spec['model']}: {error}. Load it with that version, or train again."
        ) from error
    try:
        model.load_state_dict(content["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}, made by version {spec['version']}: {error}") from error
    model.spec = spec
    if folded:
        clip = torch.zeros(1, 3, spec["frames"], spec["size"], spec["size"])
        model.net = for_inference(model.net, model.normalize(clip))
    return model.eval()


def _subclasses(kind: type[DFERModel]) -> list[type[DFERModel]]:
    """List all subclasses that have been imported."""
    return [model for child in kind.__subclasses__() for model in (child, *_subclasses(child))]
