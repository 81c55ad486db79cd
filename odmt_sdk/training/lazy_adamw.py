"""AdamW that updates only those rows of an embedding table that a step has read.

Letters: N rows, D width, U rows read in a step.
"""

from collections.abc import Callable
from typing import Any

import torch
from typing_extensions import override


def clips_sparse_gradients() -> bool:
    """Return whether torch can compute the norm of a sparse gradient; torch 2.6 cannot."""
    gradient = torch.eye(1).to_sparse()
    try:
        torch.nn.utils.get_total_norm([gradient])
    except NotImplementedError:
        return False
    return True


class LazyAdamW(torch.optim.AdamW):
    """AdamW with lazy updates for sparse gradients; the cost of a step depends on the rows read.

    Parameters with a dense gradient are updated exactly as by `torch.optim.AdamW`. For a parameter
    with a sparse gradient, such as the weight of `nn.Embedding(sparse=True)`, only the rows in the
    gradient are updated. In steps that do not read a row, its weights are not changed by momentum
    or weight decay, and its moments do not decay. A row that is read in every step is updated
    exactly as by AdamW.

    Args:
        params: parameters or parameter groups, as for `torch.optim.AdamW`.
        **settings: as for `torch.optim.AdamW`. `amsgrad`, `maximize`, `capturable` and
            `differentiable` are not supported for sparse gradients.

    Raises:
        ValueError: in `step`, if a parameter with a sparse gradient has an unsupported setting.

    Source: the update for sparse gradients follows `torch.optim.SparseAdam`, with the decoupled
    weight decay of Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    Examples:
        >>> from torch import nn
        >>> table = nn.Embedding(1000, 8, sparse=True)
        >>> optimizer = LazyAdamW(table.parameters(), lr=1e-3)
        >>> table(torch.tensor([3, 5])).sum().backward()
        >>> optimizer.step()
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings)
        self._step_supports_amp_scaling = False  # lets a GradScaler unscale sparse gradients

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step; see `torch.optim.Optimizer`."""
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
            parameter.grad = None  # AdamW skips parameters without a gradient
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
