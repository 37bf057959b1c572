"""The models: what ``model:`` in yaml and ``MODEL=`` may name; one LightningModule, one recipe, a paper."""

from pathlib import Path
from typing import Any

from dfer_zoo.emotions import EMOTIONS
from dfer_zoo.errors import CheckpointError
from dfer_zoo.models.base import DFERModel
from dfer_zoo.models.baselines import Baseline
from dfer_zoo.models.hdf import HDF
from dfer_zoo.models.m3dfel import M3DFEL
from dfer_zoo.models.micacl import MICACL
from dfer_zoo.nets.r3d import read_weights

__all__ = ["HDF", "M3DFEL", "MICACL", "Baseline", "DFERModel", "load", "read_checkpoint"]


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Read a checkpoint written in training, without running any code of the file.

    Raises:
        CheckpointError: no such file, damaged, not a checkpoint of this project, or one of other labels.
    """
    content = read_weights(checkpoint)
    if "dfer_zoo" not in content:
        raise CheckpointError(f"{checkpoint} is no checkpoint of dfer-zoo. Expected a file made by `dfer-zoo fit`.")
    labels = content["dfer_zoo"]["labels"]
    if tuple(labels) != EMOTIONS:
        raise CheckpointError(f"{checkpoint} answers with the labels {labels}; this version has {list(EMOTIONS)}.")
    return content


def load(checkpoint: str | Path) -> DFERModel:
    """Load a trained model, on the CPU and in evaluation mode, without running any code of the file.

    Args:
        checkpoint: a file written in training, such as ``runs/m3dfel-dfew/fold1-seed0/checkpoints/best_val.ckpt``.

    Returns:
        The model; ``model.spec`` holds its labels, frames, size and normalisation.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint of this project.
    """
    content = read_checkpoint(checkpoint)
    spec = content["dfer_zoo"]
    classes = {model.__name__: model for model in (HDF, M3DFEL, MICACL, Baseline)}
    if spec["model"] not in classes:
        raise CheckpointError(f"{checkpoint} holds a {spec['model']!r}; this version knows {', '.join(classes)}.")
    hyperparameters = {key: value for key, value in content["hyper_parameters"].items() if key[0] != "_"}
    model = classes[spec["model"]](
        **{**hyperparameters, **({"pretrained": False} if "pretrained" in hyperparameters else {})}
    )
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights in {checkpoint}, made by version {spec['version']}, do not fit this version's "
            f"{spec['model']}: {str(error)[:300]}"
        ) from error
    model.spec = spec
    return model.eval()
