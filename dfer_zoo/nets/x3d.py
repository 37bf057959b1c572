"""X3D as a feature extractor, for clips of any size and length.

Reference:
    Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", CVPR 2020.
"""

import warnings
from collections.abc import Mapping
from urllib.error import URLError

from torch import Tensor, nn
from torch.hub import load_state_dict_from_url

from dfer_zoo.errors import CheckpointError, InputError
from dfer_zoo.nets.convolutions import use_clip_convolutions
from dfer_zoo.nets.r3d import load_matching, read_weights

FULL_WIDTH_FACTOR = 2.0
"""Width factor of X3D-XS, S and M: 24, 24, 48, 96 and 192 channels after the stem and the four stages."""

FULL_DEPTH_FACTOR = 2.2
"""Depth factor of X3D-XS, S and M: 3, 5, 11 and 7 blocks in the four stages."""


class X3D(nn.Module):
    """X3D-S up to its head, globally averaged: ``(B, 3, T, H, W)`` -> ``(B, D)``, D = 192 at full width.

    X3D-XS, S and M are one network fed with clips of different size. pytorchvideo's head pools a window fixed at
    construction; the mean over time and space takes its place, so any clip will do. Parameter names are pytorchvideo's.

    Args:
        pretrained: True for pytorchvideo's Kinetics-400 weights of X3D-S, a path for a local copy of that file, False
            for random weights.
        width_factor: multiplies the channels of the unexpanded network; 2 is the published one, less is for small
            machines.
        depth_factor: multiplies its blocks; 2.2 is the published one.

    Attributes:
        blocks: the stem and the four residual stages, each halving the frame's sides, none the number of frames.
        channels: channels after each of `blocks`.
        out_features: D.

    Raises:
        InputError: pretrained weights for a network of other width or depth.
        CheckpointError: weights that cannot be downloaded or do not fit.
    """

    mean = (0.45, 0.45, 0.45)
    std = (0.225, 0.225, 0.225)

    def __init__(
        self,
        pretrained: bool | str = False,
        width_factor: float = FULL_WIDTH_FACTOR,
        depth_factor: float = FULL_DEPTH_FACTOR,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # pytorchvideo compiles functions by torch.jit.script
            from pytorchvideo.models.x3d import create_x3d

        # SiLU is the default's function (pytorchvideo's Swish) as a native operator.
        net = create_x3d(width_factor=width_factor, depth_factor=depth_factor, inner_act=nn.SiLU, head_activation=None)
        self.blocks = net.blocks[:-1]
        use_clip_convolutions(self)
        stages = [stage.res_blocks[-1].branch2.conv_c.out_channels for stage in self.blocks[1:]]
        self.channels = (self.blocks[0].norm.num_features, *stages)
        self.out_features = self.channels[-1]
        if pretrained is not False:
            if (width_factor, depth_factor) != (FULL_WIDTH_FACTOR, FULL_DEPTH_FACTOR):
                raise InputError(
                    f"Pretrained weights exist for width_factor {FULL_WIDTH_FACTOR} and depth_factor "
                    f"{FULL_DEPTH_FACTOR}, not {width_factor} and {depth_factor}. Set these or pretrained: false."
                )
            load_kinetics(self, pretrained)

    @property
    def stages(self) -> nn.ModuleList:
        """The residual stages."""
        return self.blocks[1:]

    def forward(self, video: Tensor) -> Tensor:
        """Return the globally averaged features."""
        x = video
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3, 4))


def load_kinetics(net: X3D, source: bool | str) -> None:
    """Load the Kinetics-400 weights of X3D-S into `net`; those of the head are left out.

    Args:
        net: at full width and depth.
        source: True to download pytorchvideo's file, or the path of a local copy.

    Raises:
        CheckpointError: the download failed, or the file is not X3D's.
    """
    checkpoint = _download() if source is True else read_weights(source)
    state = checkpoint.get("model_state", checkpoint)
    load_matching(net, {key: value for key, value in state.items() if not key.startswith("blocks.5.")}, "X3D-S")


def _download() -> Mapping[str, Mapping[str, Tensor]]:
    from pytorchvideo.models.hub.x3d import checkpoint_paths

    url = checkpoint_paths["x3d_s"]
    try:
        return load_state_dict_from_url(url, map_location="cpu", weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"The pretrained weights of X3D-S could not be downloaded ({error}). Download {url} on a machine with "
            "internet and pass its path (pretrained: path/to/X3D_S.pyth), or train from scratch (pretrained: false)."
        ) from error
