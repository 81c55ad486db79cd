"""Context managers that try out a user's module and restore it exactly afterwards."""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_PLAIN = (
    *(str, bytes, int, float, complex, type(None), type, range, slice),
    *(FunctionType, BuiltinFunctionType, ModuleType, torch.dtype, torch.device, torch.Size),
)


@contextmanager
def tried(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode and restore its complete state on exit.

    Args:
        module: the user's module.

    Examples:
        >>> norm = nn.BatchNorm1d(2)
        >>> with tried(norm):
        ...     _ = norm.train()(torch.randn(3, 2))
        >>> norm.training, norm.running_mean.tolist()
        (True, [0.0, 0.0])
    """
    with undisturbed(module), _not_compiled(module):
        module.eval()
        yield


@contextmanager
def _not_compiled(module: nn.Module) -> Iterator[None]:
    """Run compiled parts without compilation, which does not pay off for tiny trial batches."""
    if not any(
        "_orig_mod" in part._modules or part._compiled_call_impl is not None
        for part in module.modules()
    ):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def undisturbed(module: nn.Module, *, values: bool = True) -> Iterator[None]:
    """Restore a module on exit, whatever is done with it inside the context.

    Restored are weights, buffers, gradients, modes, hooks, attributes, the contents of lists,
    dictionaries and objects among the attributes, and the states of the module's own random number
    generators. Inside the context, the module has no gradients and no gradient hooks. The weights
    are copied, so the module takes twice its memory.

    Args:
        module: the user's module.
        values: whether to copy the values of tensors. False is sufficient if tensors are replaced
            but not written to, for example to move the module to another device or dtype.
    """
    memory = _Memory(values)
    memory.keep(module)
    try:
        yield
    finally:
        memory.restore()


class _Memory:
    """Records the state of everything reachable from a module, and restores it.

    Args:
        values: whether the values of tensors are copied.
    """

    def __init__(self, values: bool) -> None:
        self.values = values
        self._seen: dict[int, Any] = {}  # by id; holds the objects, so that no id is reused
        self._restorers: list[Callable[[], None]] = []

    def keep(self, root: object) -> None:
        """Record an object and everything that it contains."""
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if not isinstance(value, _PLAIN) and id(value) not in self._seen:
                self._seen[id(value)] = value
                waiting.extend(self._keep(value))

    def restore(self) -> None:
        """Restore everything that was recorded."""
        for restorer in self._restorers:
            restorer()

    def _keep(self, value: Any) -> list[Any]:
        """Record one object and return its contents."""
        if isinstance(value, torch.Tensor):
            self._keep_tensor(value)
            return []
        if isinstance(value, dict):
            items = list(value.items())
            self._restorers.append(lambda: _restore_dict(value, items))
            return [inner for _, inner in items]
        if isinstance(value, (list, set, deque)):
            inside = list(value)
            self._restorers.append(lambda: _restore_collection(value, inside))
            return inside
        if isinstance(value, (tuple, frozenset)):
            return list(value)
        if isinstance(value, partial):
            return [value.func, *value.args, value.keywords]
        if isinstance(value, MethodType):
            return [value.__self__]
        if isinstance(value, torch.Generator):
            state = value.get_state()
            self._restorers.append(lambda: _ignore(value.set_state(state)))
            return []
        if isinstance(value, random.Random):
            drawn = value.getstate()
            self._restorers.append(lambda: value.setstate(drawn))
            return []
        if _of_numpy(value):
            self._keep_numpy(value)
            return []
        if isinstance(value, torch.jit.ScriptModule):
            return self._keep_script(value)
        inner_module = getattr(value, "_orig_mod", None)
        if isinstance(value, nn.Module) and isinstance(inner_module, nn.Module):
            return [inner_module]  # everything else belongs to the compiler
        if not isinstance(value, nn.Module) and type(value).__module__.startswith("torch."):
            return []
        return [value.__dict__] if isinstance(getattr(value, "__dict__", None), dict) else []

    def _keep_script(self, module: torch.jit.ScriptModule) -> list[Any]:
        """Record modes and buffers, which TorchScript keeps outside of Python's dictionaries."""
        parts = [(part, part.training) for part in module.modules()]
        buffers = [
            (part, name, buffer)
            for part, _ in parts
            for name, buffer in part.named_buffers(recurse=False)
        ]

        def restore() -> None:
            for part, training in parts:
                part.training = training
            for part, name, buffer in buffers:
                if getattr(part, name) is not buffer:
                    setattr(part, name, buffer)

        self._restorers.append(restore)
        return [*module.parameters(), *module.buffers()]

    def _keep_tensor(self, tensor: torch.Tensor) -> None:
        if tensor.is_meta or is_lazy(tensor):
            return
        data = tensor.data
        copied = data.clone() if self.values else None
        requires_grad, leaf = tensor.requires_grad, tensor.is_leaf
        gradient = tensor.grad if leaf else None
        hooks = tensor._backward_hooks
        if gradient is not None:
            tensor.grad = None
        if hooks:
            tensor._backward_hooks = None

        def restore() -> None:
            if not _same_place(tensor, data):
                tensor.data = data
            if copied is not None and not _equal(data, copied):
                data.copy_(copied)
            if leaf:
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if tensor.grad is not gradient:
                    tensor.grad = gradient
            if hooks:
                tensor._backward_hooks = hooks

        self._restorers.append(restore)

    def _keep_numpy(self, value: Any) -> None:
        numpy = sys.modules["numpy"]
        if isinstance(value, numpy.ndarray):
            before = value.copy()
            self._restorers.append(lambda: value.flags.writeable and numpy.copyto(value, before))
        elif isinstance(value, numpy.random.RandomState):
            state = value.get_state()
            self._restorers.append(lambda: value.set_state(state))
        elif isinstance(value, numpy.random.Generator):
            bits, state = value.bit_generator, value.bit_generator.state
            self._restorers.append(lambda: setattr(bits, "state", state))


def _ignore(_: object) -> None:
    pass


def _of_numpy(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "numpy"


def _same_place(tensor: torch.Tensor, data: torch.Tensor) -> bool:
    if (tensor.dtype, tensor.device, tensor.shape) != (data.dtype, data.device, data.shape):
        return False
    if tensor.layout != torch.strided:
        return True
    return tensor.data_ptr() == data.data_ptr() and tensor.stride() == data.stride()


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.layout != torch.strided:  # sparse tensors are always restored from their copy
        return False
    return torch.equal(first, second)


def _restore_dict(value: dict[Any, Any], items: list[tuple[Any, Any]]) -> None:
    now = list(value.items())
    if len(now) != len(items) or any(
        a[0] is not b[0] or a[1] is not b[1] for a, b in zip(now, items, strict=True)
    ):
        value.clear()
        value.update(items)


def _restore_collection(value: Any, inside: list[Any]) -> None:
    now = list(value)
    if len(now) == len(inside) and all(a is b for a, b in zip(now, inside, strict=True)):
        return
    value.clear()
    (value.update if isinstance(value, set) else value.extend)(inside)
