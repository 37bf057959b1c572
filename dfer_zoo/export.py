"""Trained models outside of this package: written to one file, and that file run as if it were the model."""

import json
import os
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.models import DFERModel
from dfer_zoo.nets import NetOutput
from dfer_zoo.runs import writing

INPUT, OUTPUTS = "video", ("logits", "features")
METADATA = "dfer_zoo"
"""Key of the json text in an ONNX file's metadata; with ``.json`` behind it, the extra file of a ``.pt2``."""

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
INPUTS = {"uint8": torch.uint8, "float": torch.float32}
CONVENTIONS = {
    "input": "(batch, 3, frames, size, size) of input_type, any batch; whole range 0 to 255, normalised inside",
    "colour_order": "RGB",
    "outputs": "logits (batch, labels), before softmax; features (batch, D), what the classifier saw",
}
"""What a file says about itself beside the checkpoint's `spec` and ``input_type``, a name of `INPUTS`."""

TOLERANCE = 1e-3
"""Greatest difference of a logit, as a share of the greatest logit (or of 1), that an exported file may show."""

BATCHES = (1, 3)
"""Sizes of the batches that are compared, of clips with contrast. On a clip without any, such as a black one, HDF's
logits are not sharp to begin with: most frequencies of its attention are rounding noise around 0, whose sign its Eq. 6
amplifies, so that they differ visibly between runtimes and machines."""

Run = Callable[[np.ndarray], Sequence[np.ndarray]]


class Classifier(nn.Module):
    """What is exported of a model: normalisation and net, without what only its training needs.

    Args:
        model: from clips ``(B, 3, T, H, W)`` of 0 to 255, uint8 or float, to logits ``(B, K)`` and features
            ``(B, D)``, a plain tuple: the class `NetOutput` would have to be there where the file is loaded.
    """

    normalize = DFERModel.normalize

    def __init__(self, model: DFERModel) -> None:
        super().__init__()
        self.net = model.net
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Classify clips."""
        logits, features = self.net(self.normalize(video))
        return logits, features


class ExportedModel:
    """A model exported to ONNX, called as the PyTorch model that it came from.

    Args:
        path: a file that `export` wrote.
        runtime: ``openvino`` or ``onnxruntime``; None takes the first of them that is installed.

    Attributes:
        spec: labels, frames, size and all that the PyTorch model's `spec` holds.
        dtype: what the file takes; clips are turned into it.
        runtime: what runs it.

    Raises:
        InputError: neither runtime is installed, or not the one asked for.
        CheckpointError: no such file, damaged, or not exported by this project.
    """

    def __init__(self, path: str | Path, runtime: Literal["openvino", "onnxruntime"] | None = None) -> None:
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"There is no file {path}. `dfer-zoo export CKPT` writes one.")
        installed = installed_runtimes()
        if not installed or runtime not in (None, *installed):
            raise InputError(
                f"{runtime or 'A runtime for ONNX'} is not installed: pip install 'dfer-zoo[onnx]', or openvino."
            )
        self.runtime = runtime or installed[0]
        try:
            metadata, self._run = RUNTIMES[self.runtime](path)
        except Exception as error:  # both runtimes raise classes of their own, straight from Exception
            reason = " ".join(str(error).split())[-200:]
            raise CheckpointError(f"{path} is no ONNX file that {self.runtime} can run ({reason}).") from error
        if metadata is None:
            raise CheckpointError(
                f"{path} does not say which frames and labels it takes: it was not exported by dfer-zoo. "
                "Export the checkpoint with `dfer-zoo export CKPT`."
            )
        self.spec: dict[str, Any] = json.loads(metadata)
        self.dtype = INPUTS[self.spec.get("input_type", "uint8")]  # the first exports did not say it

    def __call__(self, video: Tensor) -> NetOutput:
        """Classify uint8 clips ``(B, 3, T, H, W)``, whatever type the file takes; T, H and W are the export's.

        Raises:
            InputError: clips of another shape or type.
        """
        wanted = (3, self.spec["frames"], self.spec["size"], self.spec["size"])
        if video.dtype != torch.uint8 or tuple(video.shape[1:]) != wanted:
            raise InputError(
                f"The exported model takes uint8 clips (B, {', '.join(map(str, wanted))}); given were "
                f"{str(video.dtype).removeprefix('torch.')} {tuple(video.shape)}."
            )
        outputs = self._run(video.cpu().to(self.dtype).contiguous().numpy())
        return NetOutput(*(torch.from_numpy(output) for output in outputs))

    def to(self, device: torch.device | str) -> "ExportedModel":
        """Return itself: the runtime decides where it computes, and takes and returns tensors on the CPU."""
        return self


def _open_openvino(path: Path) -> tuple[str | None, Run]:
    import openvino
    from openvino.frontend import FrontEndManager

    # by name: asked in general, OpenVINO tries the readers of all its formats on a damaged file, each with a complaint
    reader = FrontEndManager().load_by_framework("onnx")
    graph = reader.convert(reader.load(str(path)))
    place = ["framework", METADATA]
    metadata = graph.get_rt_info(place).astype(str) if graph.has_rt_info(place) else None
    # where a CPU can, OpenVINO computes in bfloat16 unless told otherwise
    compiled = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return metadata, lambda video: list(compiled({INPUT: video}, share_outputs=False).values())


def _open_onnxruntime(path: Path) -> tuple[str | None, Run]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    metadata = session.get_modelmeta().custom_metadata_map.get(METADATA)
    return metadata, lambda video: session.run(OUTPUTS, {INPUT: video})


RUNTIMES = {"openvino": _open_openvino, "onnxruntime": _open_onnxruntime}


def installed_runtimes() -> list[str]:
    """Return the names of the installed runtimes, the faster first."""
    return [name for name in RUNTIMES if find_spec(name)]


def export(
    checkpoint: Path,
    format: Literal["onnx", "torch"] = "onnx",
    out: Path | None = None,
    input: Literal["uint8", "float"] = "uint8",
) -> None:
    """Write a trained model to one file that runs without this package, checked against the model itself.

    Args:
        checkpoint: such as runs/m3dfel-dfew/fold1-seed0/checkpoints/best_val.ckpt.
        format: onnx for ONNX Runtime, OpenVINO and others; torch for torch.export.load.
        out: file to write, .onnx or .pt2; beside the checkpoint by default.
        input: type of the clips that the file takes, of the range 0 to 255 in both cases; float is 32 bits.

    Raises:
        InputError: packages are missing, or a file of another name.
        CheckpointError: the checkpoint cannot be used, or its export does not say the same as the model.
    """
    from rich.console import Console

    from dfer_zoo.models import load

    checkpoint, suffix = Path(checkpoint), SUFFIXES[format]
    out = Path(out) if out else checkpoint.with_suffix(suffix)
    if out.suffix != suffix or out.is_dir():
        raise InputError(f"{out} cannot be the file of --format {format}: its name must end with {suffix}.")
    missing = [name for name in ("onnx", "onnxscript") if format == "onnx" and not find_spec(name)]
    if missing or (format == "onnx" and not installed_runtimes()):
        raise InputError(f"Export to ONNX needs {', '.join(missing or RUNTIMES)}: pip install 'dfer-zoo[onnx]'.")
    model = load(checkpoint)
    if not isinstance(model, DFERModel):
        raise InputError(f"{checkpoint} is an export already. Name the checkpoint it was made of.")

    console = Console(soft_wrap=True)
    temporary = out.with_name(f".{os.getpid()}.{out.name}")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with writing(out), console.status(f"Exporting {model.spec['model']}: half a minute for a net of full width"):
            write = write_onnx if format == "onnx" else write_torch
            spec = {**model.spec, **CONVENTIONS, "input_type": input}
            write(trace(model, INPUTS[input]), spec, temporary)
        with console.status("Comparing it with the model"):
            for runtime, exported in read_back(temporary, INPUTS[input]).items():
                worst = check(model, exported, f"{checkpoint} in {runtime}")
                console.print(
                    f"{runtime}: logits within {worst:.1e} of the model's, on random and on smooth clips, in batches "
                    f"of {' and '.join(map(str, BATCHES))}",
                    highlight=False,
                )
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    console.print(f"Exported: {out} ({out.stat().st_size / 1e6:.1f} MB)", markup=False)


def trace(model: DFERModel, dtype: torch.dtype = torch.uint8) -> torch.export.ExportedProgram:
    """Return the model's graph, for any number of clips of a type, with the frames and size it was trained on."""
    shapes = {INPUT: {0: torch.export.Dim("batch")}}
    clips = random_clips(model.spec, 2).to(dtype)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The tensor attributes")  # nn.LSTM's list of its own weights
        return torch.export.export(Classifier(model).eval(), (clips,), dynamic_shapes=shapes)


def write_torch(program: torch.export.ExportedProgram, spec: dict[str, Any], path: Path) -> None:
    """Write the graph for `torch.export.load`, with `spec` as the extra file ``dfer_zoo.json``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor")  # weights are channels last, on the CPU
        torch.export.save(program, path, extra_files={f"{METADATA}.json": json.dumps(spec)})


def write_onnx(program: torch.export.ExportedProgram, spec: dict[str, Any], path: Path) -> None:
    """Write the graph in ONNX, with `spec` as json text in the metadata."""
    translated = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes={INPUT: {0: "batch"}},
        verbose=False,
    )
    translated.model.metadata_props[METADATA] = json.dumps(spec)
    translated.save(path, external_data=False)


def read_back(path: Path, dtype: torch.dtype) -> dict[str, Callable[[Tensor], Sequence[Tensor]]]:
    """Return the callables on uint8 clips that an exported file gives: one for each runtime installed, or torch's own.

    Args:
        path: the file.
        dtype: what the file takes.
    """
    if path.suffix == SUFFIXES["torch"]:
        run = torch.export.load(path).module()
        return {"torch.export": lambda video: run(video.to(dtype))}
    return {runtime: ExportedModel(path, runtime) for runtime in installed_runtimes()}


def random_clips(spec: dict[str, Any], count: int) -> Tensor:
    """Return independent uniform pixels, the same at every call: uint8 ``(count, 3, T, size, size)``."""
    shape = (count, 3, spec["frames"], spec["size"], spec["size"])
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def smooth_clips(spec: dict[str, Any], count: int) -> Tensor:
    """Return clips whose colours change slowly over space and time, as filmed ones: uint8, as `random_clips`."""
    coarse = random_clips({"frames": 3, "size": 6}, count).float()
    fine = F.interpolate(coarse, (spec["frames"], spec["size"], spec["size"]), mode="trilinear", align_corners=True)
    return fine.round().to(torch.uint8)


def check(model: DFERModel, exported: Callable[[Tensor], Sequence[Tensor]], what: str) -> float:
    """Return the greatest difference between the logits of a model and of its export.

    Args:
        model: the model.
        exported: from the same clips to logits and features.
        what: names the export in the error.

    Raises:
        CheckpointError: the difference is above `TOLERANCE`.
    """
    worst = 0.0
    for clips in (random_clips, smooth_clips):
        for count in BATCHES:
            video = clips(model.spec, count)
            with torch.no_grad():
                expected, given = model(video).logits, exported(video)[0]
            difference = (expected - given).abs().max().item()
            worst = max(worst, difference)
            if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
                raise CheckpointError(
                    f"The export of {what} does not say what the model says: on {clips.__name__.replace('_', ' ')} in "
                    f"a batch of {count}, logits differ by {difference:.2g}. Nothing was written."
                )
    return worst
