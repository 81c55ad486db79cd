"""AdamW that updates only the rows a step has read of a table.

Letters: N rows, D width, U rows read in a step.
"""

from collections.abc import Callable
from typing import Any

import torch
from typing_extensions import override


class LazyAdamW(torch.optim.AdamW):
    """AdamW whose cost does not grow with a table from which a step reads a few rows.

    Parameters with a dense gradient are updated as by `torch.optim.AdamW`. Of a parameter with a
    sparse gradient, as `nn.Embedding(sparse=True)` has, only the rows in the gradient are updated:
    their weights, moments and weight decay. Two things differ from AdamW for such rows, in the
    steps that do not read them: they are not moved on by their momentum, and neither weights nor
    moments decay. A row that every step reads is updated as AdamW does.

    Args:
        params: parameters or groups, as for `torch.optim.AdamW`.
        **settings: as for `torch.optim.AdamW`; `amsgrad`, `maximize`, `capturable` and
            `differentiable` are not for sparse gradients.

    Raises:
        ValueError: in `step`, if a parameter with a sparse gradient has such a setting.

    Source: the rule for sparse gradients is that of `torch.optim.SparseAdam`, with the weight decay
    of Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    Examples:
        >>> from torch import nn
        >>> table = nn.Embedding(1000, 8, sparse=True)
        >>> optimizer = LazyAdamW(table.parameters(), lr=1e-3)
        >>> table(torch.tensor([3, 5])).sum().backward()
        >>> optimizer.step()
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self._step_supports_amp_scaling = False  # a GradScaler is to unscale sparse gradients too

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters once; see `torch.optim.Optimizer`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for parameter, gradient, group in sparse:
            self._update_rows(parameter, gradient, group)
            parameter.grad = None  # AdamW passes over parameters without a gradient
        try:
            super().step()
        finally:
            for parameter, gradient, _ in sparse:
                parameter.grad = gradient
        return loss

    def _update_rows(
        self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        unfit = [
            name
            for name in ("amsgrad", "maximize", "capturable", "differentiable")
            if group.get(name)
        ]
        if unfit:
            raise ValueError(
                f"{unfit[0]}=True does not go with the sparse gradient of a table: leave it out, "
                "or make the table's gradient dense (sparse=False)"
            )
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(parameter)  # (N, D)
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        learning_rate = float(group["lr"])

        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()  # (U,), (U, D)
        mean = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        spread = square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        update = mean.div_(spread).mul_(-learning_rate / (1 - beta1**step))
        if group["weight_decay"]:
            update.add_(parameter[rows], alpha=-learning_rate * group["weight_decay"])
        parameter.index_add_(0, rows, update)
