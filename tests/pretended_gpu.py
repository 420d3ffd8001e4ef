"""Tensors that say they are on a GPU where there is none: shapes and devices, no numbers.

Under :class:`Pretended` code that mixes devices raises, and so does code that waits for a number.
Tensors of the CPU are real.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Pretended(TorchDispatchMode):
    """A context in which ``cuda`` is a device."""

    def __init__(self) -> None:
        super().__init__()
        self.gpu = FakeTensorMode(allow_non_fake_inputs=True)
        self.absent = ExitStack()  # what asks for a driver

    def __enter__(self):
        self.absent.enter_context(patch.object(torch.cuda, "_lazy_init", lambda: None))
        self.absent.enter_context(patch.object(torch.Tensor, "pin_memory", lambda self: self))
        return super().__enter__()

    def __exit__(self, *error):
        self.absent.close()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        fake = [isinstance(tensor, FakeTensor) for tensor in tensors]
        if not any(fake) and torch.device(kwargs.get("device") or "cpu").type != "cuda":
            return func(*args, **kwargs)
        devices = {tensor.device.type for tensor in tensors if tensor.ndim}
        if len(devices) > 1 and func not in _COPIES:
            raise RuntimeError(f"{func}: tensors on two different devices")
        with self.gpu:
            return func(*args, **kwargs)


def on_gpu(module: nn.Module, mode: Pretended) -> nn.Module:
    """Put all weights and buffers on the pretended GPU, in their own layouts."""
    with mode.gpu:
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = nn.Parameter(_like(weight), weight.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = _like(buffer)
    return module


def _like(tensor: torch.Tensor) -> torch.Tensor:
    options = {"dtype": tensor.dtype, "device": "cuda"}
    return torch.empty_strided(tensor.shape, tensor.stride(), **options)
