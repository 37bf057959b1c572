"""Sharpness-aware minimisation as an AdamW whose step runs the closure twice."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dfer_zoo.errors import InputError


class SAM(torch.optim.AdamW):
    """Sharpness-aware minimisation (Foret et al., ICLR 2021, Eq. 2-3) around AdamW.

    A step runs the closure at the weights w, climbs to ``w + rho * gradient / ||gradient||``, runs the closure again
    there, returns to w exactly and takes AdamW's step along the second gradient. Under distributed data parallelism
    the gradient is already the mean over devices, so every device climbs to the same place. With `rho` 0 it is AdamW.

    Args:
        params: as in `torch.optim.AdamW`.
        rho: radius of the climb, not negative; the paper's 0.05.
        net: module whose buffers (BatchNorm's running statistics) the second pass must leave as the first pass left
            them.
        **adamw: keyword arguments of `torch.optim.AdamW`.

    Attributes:
        in_second_pass: whether the closure is running at the climbed weights.
        grad_norm: 2-norm of the first pass's gradient over all parameters, a scalar; None before the first step, and
            with `rho` 0.

    Raises:
        InputError: a negative `rho`; at a step, a missing closure.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        rho: float = 0.05,
        net: nn.Module | None = None,
        **adamw: Any,
    ):
        if rho < 0:
            raise InputError(
                f"rho is {rho}; SAM climbs by rho, which is 0 (plain AdamW) or positive, 0.05 in the paper."
            )
        super().__init__(params, **adamw)
        # fused AdamW declares that it undoes loss scaling itself, for which Lightning refuses to clip gradients; SAM
        # refuses loss scaling, so there is none to undo
        self._step_supports_amp_scaling = False
        self.rho = rho
        self.net = net
        self.in_second_pass = False
        self.grad_norm: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Take one step.

        Args:
            closure: clears the gradients, computes the loss, runs its backward pass and returns it. The second run
                must see what the first saw: the same batch and the same dropout.

        Returns:
            The loss of the first pass.
        """
        if self.rho == 0:
            return super().step(closure)
        if closure is None:
            raise InputError(
                "SAM needs two passes a step and got no closure. Call step(closure); with 16-bit loss scaling "
                "(precision 16-mixed) no closure arrives: use 32-true or bf16-mixed, or rho 0."
            )
        with torch.enable_grad():
            loss = closure()
        climbed = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        weights = [p.clone() for p in climbed]
        statistics = [(buffer, buffer.clone()) for buffer in (() if self.net is None else self.net.buffers())]
        self.grad_norm = torch.nn.utils.get_total_norm([p.grad for p in climbed])
        scale = self.rho / (self.grad_norm + 1e-12)
        for p in climbed:
            p.add_(p.grad * scale)
        self.in_second_pass = True
        try:
            with torch.enable_grad():
                closure()
        finally:
            self.in_second_pass = False
            for p, weight in zip(climbed, weights, strict=True):
                p.copy_(weight)
            for buffer, first in statistics:
                buffer.copy_(first)
        super().step()
        return loss
