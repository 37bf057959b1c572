"""A trained net as it predicts fastest."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def store_channels_last(net: nn.Module) -> None:
    """Store the weights of `net` in the order in which clips leave the loader, so that no convolution copies them."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for weight in net.parameters():
        weight.data = weight.data.contiguous(memory_format=formats.get(weight.ndim, torch.contiguous_format))


@torch.no_grad()
def for_inference(net: nn.Module, video: Tensor, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy of `net` in evaluation mode with BatchNorm folded into the convolutions before it.

    The copy is the same function, but for rounding. It takes clips of `dtype`, fastest stored channels last.

    Args:
        net: from clips to `NetOutput`; each convolution's output goes to its norm alone.
        video: clips ``(B, 3, T, H, W)`` on the net's device; their way through `net` shows which norm follows which
            convolution.
        dtype: ``torch.bfloat16`` is twice as fast on machines that compute in it; logits then differ by about 1 % of
            their spread.
    """
    net = copy.deepcopy(net).eval()
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # convolutions by their outputs, held to keep their ids
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            made[id(output)] = module, output
        elif id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    kinds = (nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d)
    hooks = [module.register_forward_hook(note) for module in net.modules() if isinstance(module, kinds)]
    net(video.to(next(net.parameters()).dtype))
    for hook in hooks:
        hook.remove()
    for convolution, norm in pairs:
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
    folded = {norm for _, norm in pairs}
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if child in folded:
                setattr(parent, name, nn.Identity())
    net.to(dtype)
    store_channels_last(net)
    return net
