"""Activation checkpointing: memory for time."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(net: nn.Module) -> None:
    """Let each stage of the backbone keep its input alone and compute the rest again in the backward pass.

    Outputs and gradients stay what they were, and running statistics are updated once.

    Args:
        net: holds a backbone with an attribute ``stages``.
    """
    for backbone in net.modules():
        for stage in getattr(backbone, "stages", ()):
            stage.forward = functools.partial(
                checkpoint,
                stage.forward,
                use_reentrant=False,
                preserve_rng_state=False,  # there is no dropout in a stage
                context_fn=functools.partial(_contexts, stage),
            )


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of the first pass and of the second."""
    return nullcontext(), _buffers_at_rest(stage)


@contextmanager
def _buffers_at_rest(stage: nn.Module) -> Iterator[None]:
    """Let copies take the updates of running statistics, which have had them in the first pass."""
    originals = [(module, dict(module._buffers)) for module in stage.modules()]
    for module, buffers in originals:
        for name, buffer in buffers.items():
            module._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for module, buffers in originals:
            module._buffers.update(buffers)
