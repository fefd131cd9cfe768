"""Stochastic gradient descent with momentum and weight decay (section 3.4).

The kernel is that of `torch.optim.SGD(fused=True)`, with the same bits. That class is not used because the first
one that a process makes imports torch's compiler, which takes a second of processor time and 150 MB.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Sgd:
    """Updates weights by `v <- momentum * v + g + weight_decay * w; w <- w - lr * v` (g: the gradient).

    On a GPU `lr` is a float32 tensor () there, so that a captured step reads what `set_lr` sets. `momenta` are
    the v, none before the first update nor without momentum; they lie in memory as the weights do.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        self.parameters = list(parameters)
        device = self.parameters[0].device
        self.lr: float | Tensor = torch.tensor(lr, device=device) if device.type == "cuda" else lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self.momenta: list[Tensor] = []

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of the next update."""
        if isinstance(self.lr, Tensor):
            self.lr.fill_(lr)
        else:
            self.lr = lr

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Updates the weights by their gradients; every weight must have one."""
        weights: list[Tensor] = list(self.parameters)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        is_first = bool(self.momentum) and not self.momenta
        if is_first:
            self.momenta = [torch.empty_like(weight) for weight in weights]
        with torch.no_grad():
            torch._fused_sgd_(
                weights,
                gradients,
                self.momenta,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                lr=self.lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                is_first_step=is_first,
            )
