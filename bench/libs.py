"""The libraries under test behind the few names in which they differ; everything else is spelled alike in the cases."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np


class Pullback:
    """pullback."""

    name = "pullback"

    def __init__(self, threads: int) -> None:
        import pullback as pb

        pb.set_num_threads(threads)
        if pb.get_num_threads() != threads:
            raise RuntimeError(f"pullback runs {pb.get_num_threads()} threads where {threads} were asked for")
        self.pb = pb
        self.nn: ModuleType = pb.nn
        self.version = f"{pb.__version__} ({pb.isa_level()})"
        self.no_grad = pb.no_grad
        self.silu, self.tanh, self.gelu = pb.silu, pb.tanh, pb.gelu
        self.cross_entropy = pb.losses.cross_entropy
        self.sigmoid, self.exp, self.log, self.sin = pb.sigmoid, pb.exp, pb.log, pb.sin
        self.matmul, self.concat = pb.matmul, pb.concat

    def jacobian_forward(self, f: Any) -> Any:
        return self.pb.jacobian(f, mode="forward")

    def half(self, tensor: Any) -> Any:
        return tensor.astype(self.pb.bfloat16)

    def autocast(self) -> Any:
        return self.pb.autocast("bfloat16")

    def compiled(self, model: Any) -> Any:
        return model

    def tensor(self, array: np.ndarray, grad: bool = False) -> Any:
        return self.pb.tensor(array, requires_grad=grad)

    def array(self, tensor: Any) -> np.ndarray:
        t = tensor.detach()
        return np.asarray((t.astype(self.pb.float32) if t.dtype == self.pb.bfloat16 else t).numpy())

    def layout(self, model: Any, images: Any) -> tuple[Any, Any]:
        return model, images

    def softmax(self, x: Any) -> Any:
        return self.pb.softmax(x, axis=-1)

    def layer_norm(self, x: Any, weight: Any, bias: Any) -> Any:
        return self.pb.layer_norm(x, weight, bias)

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        return self.pb.scaled_dot_product_attention(q, k, v, causal=True)

    def heads(self, x: Any, heads: int) -> Any:
        b, t, c = x.shape
        return self.pb.permute_dims(self.pb.reshape(x, (b, t, heads, c // heads)), (0, 2, 1, 3))

    def merge(self, x: Any) -> Any:
        b, h, t, c = x.shape
        return self.pb.reshape(self.pb.permute_dims(x, (0, 2, 1, 3)), (b, t, h * c))

    def thirds(self, x: Any) -> Any:
        return self.pb.split(x, 3, axis=-1)

    def adamw(self, params: Iterable[Any], lr: float) -> Any:
        return self.pb.optim.AdamW(params, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)

    def sgd(self, params: Iterable[Any], lr: float) -> Any:
        return self.pb.optim.SGD(params, lr=lr, momentum=0.9)


class Torch:
    """PyTorch, with its fused optimizers, the fastest it has for eager work."""

    name = "torch"

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.torch = torch
        self.nn = torch.nn
        self.f = torch.nn.functional
        self.version = torch.__version__
        self.no_grad = torch.no_grad
        self.silu, self.tanh, self.gelu = self.f.silu, torch.tanh, self.f.gelu
        self.cross_entropy = self.f.cross_entropy
        self.sigmoid, self.exp, self.log, self.sin = torch.sigmoid, torch.exp, torch.log, torch.sin
        self.matmul, self.concat = torch.matmul, torch.cat

    def jacobian_forward(self, f: Any) -> Any:
        return self.torch.func.jacfwd(f)

    def half(self, tensor: Any) -> Any:
        return tensor.to(self.torch.bfloat16)

    def autocast(self) -> Any:
        return self.torch.autocast("cpu", self.torch.bfloat16)

    def compiled(self, model: Any) -> Any:
        return model

    def tensor(self, array: np.ndarray, grad: bool = False) -> Any:
        return self.torch.tensor(array).requires_grad_(grad)

    def array(self, tensor: Any) -> np.ndarray:
        t = tensor.detach()
        return (t.float() if t.dtype == self.torch.bfloat16 else t).numpy()

    def layout(self, model: Any, images: Any) -> tuple[Any, Any]:
        return model, images

    def softmax(self, x: Any) -> Any:
        return self.torch.softmax(x, -1)

    def layer_norm(self, x: Any, weight: Any, bias: Any) -> Any:
        return self.f.layer_norm(x, x.shape[-1:], weight, bias)

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        return self.f.scaled_dot_product_attention(q, k, v, is_causal=True)

    def heads(self, x: Any, heads: int) -> Any:
        b, t, c = x.shape
        return x.view(b, t, heads, c // heads).transpose(1, 2)

    def merge(self, x: Any) -> Any:
        b, h, t, c = x.shape
        return x.transpose(1, 2).contiguous().view(b, t, h * c)

    def thirds(self, x: Any) -> Any:
        return x.chunk(3, dim=-1)

    def adamw(self, params: Iterable[Any], lr: float) -> Any:
        adamw = self.torch.optim.AdamW
        return adamw(params, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True)

    def sgd(self, params: Iterable[Any], lr: float) -> Any:
        return self.torch.optim.SGD(params, lr=lr, momentum=0.9, fused=True)


class TorchChannelsLast(Torch):
    """PyTorch with images and filters stored channels-last."""

    name = "torch-channels-last"

    def layout(self, model: Any, images: Any) -> tuple[Any, Any]:
        form = self.torch.channels_last
        return model.to(memory_format=form), images.contiguous(memory_format=form)


class TorchCompile(Torch):
    """PyTorch with its compiler over the model."""

    name = "torch-compile"

    def compiled(self, model: Any) -> Any:
        return self.torch.compile(model)


class PullbackFloat32(Pullback):
    """pullback without the narrow types that a case asks for."""

    name = "pullback-float32"

    def half(self, tensor: Any) -> Any:
        return tensor

    def autocast(self) -> Any:
        return contextlib.nullcontext()


class Jax:
    """JAX under jit on the CPU. It has no modules: bench/cases/jax_peer.py writes the cases in its own terms."""

    name = "jax"

    def __init__(self, threads: int) -> None:
        if threads != len(os.sched_getaffinity(0)):
            raise RuntimeError(f"jax takes every core of its process, and {threads} threads were asked for")
        import jax

        self.jax = jax
        self.version = jax.__version__

    def tensor(self, array: np.ndarray, grad: bool = False) -> Any:
        return self.jax.numpy.asarray(array)

    def array(self, tensor: Any) -> np.ndarray:
        return np.asarray(tensor)


@dataclass(frozen=True)
class Side:
    """One contestant: a library and the environment of its process. A special one runs only in cases that name it, and
    where the module it needs is there."""

    name: str
    library: type
    what: str
    env: dict[str, str]
    special: bool = False
    needs: str = ""


#: An allocator that keeps touched memory, which is what PyTorch's eager mode would be with a caching allocator.
KEPT_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000"}

SIDES = {
    side.name: side
    for side in (
        Side("pullback", Pullback, "pullback, the widest kernels this CPU runs", {}),
        Side("pullback-v3", Pullback, "pullback with PULLBACK_ISA=v3 (AVX2)", {"PULLBACK_ISA": "v3"}, special=True),
        Side("torch", Torch, "PyTorch eager as shipped, fused optimizers", {}),
        Side("torch-heap", Torch, "PyTorch eager with a kept heap (MALLOC_MMAP_MAX_=0, no trim)", KEPT_HEAP),
        Side("pullback-float32", PullbackFloat32, "pullback in float32, beside a bfloat16 case", {}, special=True),
        Side("torch-channels-last", TorchChannelsLast, "torch-heap with channels-last images", KEPT_HEAP, special=True),
        Side("torch-compile", TorchCompile, "torch-heap with torch.compile", KEPT_HEAP, special=True),
        Side("jax", Jax, "JAX under jit", {"JAX_PLATFORMS": "cpu"}, special=True, needs="jax"),
    )
}
PEERS = tuple(name for name, side in SIDES.items() if name != "pullback" and not side.special)


def there(side: str) -> bool:
    """Whether the module that a side needs is installed."""
    needs = SIDES[side].needs
    return not needs or importlib.util.find_spec(needs) is not None
