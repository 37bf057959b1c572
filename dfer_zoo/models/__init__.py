"""The models: what ``model:`` in yaml and ``MODEL=`` may name; one LightningModule, one recipe, a paper."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfer_zoo.errors import CheckpointError
from dfer_zoo.models.base import DFERModel
from dfer_zoo.models.baselines import Baseline
from dfer_zoo.models.hdf import HDF
from dfer_zoo.models.m3dfel import M3DFEL
from dfer_zoo.models.micacl import MICACL
from dfer_zoo.nets.r3d import read_weights

if TYPE_CHECKING:
    from dfer_zoo.export import ExportedModel

__all__ = ["HDF", "M3DFEL", "MICACL", "Baseline", "DFERModel", "load", "read_checkpoint"]


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Read a checkpoint written in training, without running any code of the file.

    Raises:
        CheckpointError: no such file, damaged, or not a checkpoint of this project.
    """
    content = read_weights(checkpoint)
    if "dfer_zoo" not in content:
        raise CheckpointError(f"{checkpoint} is no checkpoint of dfer-zoo. Expected a file made by `dfer-zoo fit`.")
    return content


def load(checkpoint: str | Path) -> "DFERModel | ExportedModel":
    """Load a trained model, on the CPU and in evaluation mode, without running any code of the file.

    Args:
        checkpoint: a file written in training, such as ``runs/m3dfel-dfew/fold1-seed0/checkpoints/best_val.ckpt``, or
            one that `dfer_zoo.export.export` made of it, ``best_val.onnx``.

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
        raise CheckpointError(f"The weights in {checkpoint} do not fit {spec['model']}: {str(error)[:300]}") from error
    model.spec = spec
    return model.eval()
