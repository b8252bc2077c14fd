"""The compiled core of pullback. Written by tools/stubs.py: do not edit."""

import builtins
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, overload

__all__ = ['CheckpointError', 'DTypeError', 'DeviceError', 'GraphError', 'ShapeError', 'Tensor', 'abs', 'acos', 'adaptive_avg_pool2d', 'add', 'all', 'any', 'arange', 'argmax', 'argmin', 'argsort', 'asarray', 'asin', 'atan', 'avg_pool2d', 'batch_norm', 'bfloat16', 'bitwise_and', 'bitwise_or', 'bitwise_xor', 'bool', 'broadcast_to', 'ceil', 'celu', 'clip', 'concat', 'conv1d', 'conv2d', 'conv_transpose2d', 'cos', 'cosh', 'cumulative_sum', 'divide', 'dtype', 'einsum', 'elu', 'embedding', 'empty', 'empty_like', 'equal', 'erf', 'erfc', 'exp', 'expand_dims', 'expm1', 'eye', 'flatten', 'flip', 'float16', 'float32', 'float64', 'floor', 'floor_divide', 'from_dlpack', 'full', 'full_like', 'get_num_threads', 'greater', 'greater_equal', 'group_norm', 'hardsigmoid', 'hardswish', 'hardtanh', 'int16', 'int32', 'int64', 'int8', 'isa_level', 'isfinite', 'isinf', 'isnan', 'layer_norm', 'leaky_relu', 'less', 'less_equal', 'linear', 'linspace', 'log', 'log10', 'log1p', 'log2', 'log_sigmoid', 'log_softmax', 'logical_and', 'logical_not', 'logical_or', 'logical_xor', 'logsumexp', 'manual_seed', 'matmul', 'matrix_transpose', 'max', 'max_pool2d', 'maximum', 'mean', 'meshgrid', 'min', 'minimum', 'mish', 'moveaxis', 'multiply', 'negative', 'norm', 'not_equal', 'ones', 'ones_like', 'op', 'ops', 'outer', 'pad', 'permute_dims', 'positive', 'pow', 'prod', 'reciprocal', 'relu', 'relu6', 'remainder', 'repeat', 'reshape', 'rms_norm', 'roll', 'round', 'rsqrt', 'scaled_dot_product_attention', 'scatter_add', 'selu', 'set_num_threads', 'sigmoid', 'sign', 'silu', 'sin', 'sinh', 'softmax', 'softplus', 'softsign', 'sort', 'split', 'sqrt', 'square', 'squeeze', 'stack', 'std', 'stop_gradient', 'subtract', 'sum', 'take', 'take_along_axis', 'tan', 'tanh', 'tanhshrink', 'tensor', 'tensordot', 'tile', 'topk', 'tril', 'triu', 'trunc', 'uint16', 'uint32', 'uint64', 'uint8', 'unstack', 'var', 'vecdot', 'where', 'zeros', 'zeros_like']
__version__: str

class CheckpointError(RuntimeError): ...

class DTypeError(TypeError): ...

class DeviceError(RuntimeError): ...

class GraphError(RuntimeError): ...

class ShapeError(ValueError): ...

class dtype:
    """Element type of a tensor, such as pb.float32."""

    def __init__(self, name: str) -> None:
        ...

    @property
    def name(self) -> str:
        """Its name, such as float32."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""

    @property
    def is_floating(self) -> builtins.bool:
        """Whether it is a floating dtype."""

    def __repr__(self) -> str:
        ...

    def __hash__(self) -> int:
        ...

    def __eq__(self, arg: object | None, /) -> builtins.bool:
        ...

    def __ne__(self, arg: object | None, /) -> builtins.bool:
        ...

    def __reduce__(self) -> tuple:
        ...

DTypeOf: TypeAlias = dtype

bool: dtype

int8: dtype

int16: dtype

int32: dtype

int64: dtype

uint8: dtype

uint16: dtype

uint32: dtype

uint64: dtype

float16: dtype

bfloat16: dtype

float32: dtype

float64: dtype

class Tensor:
    """An array of numbers with a place in the graph."""

    def __hash__(self, /) -> int:
        ...

    def __lt__(self, value: object, /) -> Tensor:
        ...

    def __le__(self, value: object, /) -> Tensor:
        ...

    def __eq__(self, value: object, /) -> Tensor:  # type: ignore[override]
        ...

    def __ne__(self, value: object, /) -> Tensor:  # type: ignore[override]
        ...

    def __gt__(self, value: object, /) -> Tensor:
        ...

    def __ge__(self, value: object, /) -> Tensor:
        ...

    def __init__(self, data: object, requires_grad: builtins.bool=False) -> None:
        ...

    def __add__(self, value: object, /) -> Tensor:
        ...

    def __radd__(self, value: object, /) -> Tensor:
        ...

    def __sub__(self, value: object, /) -> Tensor:
        ...

    def __rsub__(self, value: object, /) -> Tensor:
        ...

    def __mul__(self, value: object, /) -> Tensor:
        ...

    def __rmul__(self, value: object, /) -> Tensor:
        ...

    def __mod__(self, value: object, /) -> Tensor:
        ...

    def __rmod__(self, value: object, /) -> Tensor:
        ...

    def __pow__(self, value: object, /) -> Tensor:
        ...

    def __rpow__(self, value: object, /) -> Tensor:
        ...

    def __neg__(self, /) -> Tensor:
        ...

    def __pos__(self, /) -> Tensor:
        ...

    def __abs__(self, /) -> Tensor:
        ...

    def __bool__(self, /) -> builtins.bool:
        ...

    def __invert__(self, /) -> Tensor:
        ...

    def __and__(self, value: object, /) -> Tensor:
        ...

    def __rand__(self, value: object, /) -> Tensor:
        ...

    def __xor__(self, value: object, /) -> Tensor:
        ...

    def __rxor__(self, value: object, /) -> Tensor:
        ...

    def __or__(self, value: object, /) -> Tensor:
        ...

    def __ror__(self, value: object, /) -> Tensor:
        ...

    def __int__(self, /) -> int:
        ...

    def __float__(self, /) -> float:
        ...

    def __iadd__(self, value: object, /) -> Tensor:
        ...

    def __isub__(self, value: object, /) -> Tensor:
        ...

    def __imul__(self, value: object, /) -> Tensor:
        ...

    def __imod__(self, value: object, /) -> Tensor:
        ...

    def __ipow__(self, value: object, /) -> Tensor:
        ...

    def __floordiv__(self, value: object, /) -> Tensor:
        ...

    def __rfloordiv__(self, value: object, /) -> Tensor:
        ...

    def __truediv__(self, value: object, /) -> Tensor:
        ...

    def __rtruediv__(self, value: object, /) -> Tensor:
        ...

    def __ifloordiv__(self, value: object, /) -> Tensor:
        ...

    def __itruediv__(self, value: object, /) -> Tensor:
        ...

    def __index__(self, /) -> int:
        ...

    def __matmul__(self, value: object, /) -> Tensor:
        ...

    def __rmatmul__(self, value: object, /) -> Tensor:
        ...

    def __len__(self, /) -> int:
        ...

    def __getitem__(self, key: object, /) -> Tensor:
        ...

    def __setitem__(self, key: object, value: object, /) -> None:
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""

    @property
    def ndim(self) -> int:
        """The number of axes."""

    @property
    def size(self) -> int:
        """The number of elements."""

    @property
    def dtype(self) -> DTypeOf:
        """The type of the elements."""

    @property
    def device(self) -> str:
        """The name of the device."""

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged, as a view."""

    @property
    def T(self) -> Tensor:
        """The axes in reverse order, as a view."""

    @property
    def requires_grad(self) -> builtins.bool:
        """Whether backward computes a gradient; can be set on a leaf of floats."""

    @requires_grad.setter
    def requires_grad(self, arg: builtins.bool, /) -> None:
        ...

    @property
    def grad(self) -> Tensor:
        """The gradient that backward added up, or None."""

    @grad.setter
    def grad(self, arg: object | None, /) -> None:
        ...

    @property
    def is_leaf(self) -> builtins.bool:
        """Whether no recorded op made it."""

    @property
    def _version(self) -> int:
        ...

    @property
    def _address(self) -> int:
        ...

    @property
    def _readonly(self) -> builtins.bool:
        ...

    def _data_as(self, arg: Tensor, /) -> None:
        ...

    def detach(self) -> Tensor:
        """The same memory outside the graph."""

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for a 0-d tensor."""

    def tobytes(self) -> bytes:
        """The elements in C order."""

    def astype(self, dtype: DTypeOf) -> Tensor:
        """
        The elements in another dtype; the tensor itself if it has that dtype.

        Example:
            >>> pb.asarray([1.5]).astype(pb.int64).tolist()
            [1]
        """

    def to(self, target: object) -> Tensor:
        """In another dtype, or on the named device."""

    def clone(self) -> Tensor:
        """A copy, differentiable."""

    def contiguous(self) -> Tensor:
        """In C order: itself or a copy."""

    def requires_grad_(self, requires_grad: builtins.bool=True) -> Any:
        """Sets requires_grad and returns the tensor."""

    def __dlpack__(self, *, stream: object | None=None, max_version: object | None=None, dl_device: object | None=None, copy: object | None=None) -> Any:
        """
        A DLPack capsule of this memory; writes made through it are not tracked.
        """

    def __dlpack_device__(self) -> tuple:
        ...

    def __array__(self, dtype: object | None=None, copy: object | None=None) -> Any:
        ...

    def numpy(self) -> Any:
        """
        A NumPy array on the same memory. Writes through it are not tracked.

        Example:
            >>> pb.arange(3).numpy().tolist()
            [0, 1, 2]
        """

    def __iter__(self) -> Iterator[Tensor]:
        ...

    def __contains__(self, value: Tensor | complex | object) -> builtins.bool:
        ...

    def __repr__(self) -> str:
        ...

    def __reduce__(self) -> tuple:
        ...

    def __copy__(self) -> Any:
        ...

    def __deepcopy__(self, memo: object) -> Any:
        ...

    def __array_namespace__(self, *, api_version: object | None=None) -> types.ModuleType:
        ...

    def reshape(self, *args) -> Tensor:
        """The same elements in another shape, given as sizes or as one tuple."""

    def permute_dims(self, *args) -> Tensor:
        """The axes in another order, given one by one or as one tuple."""
    __array_priority__: int

    def backward(self, cotangent: object | None=None, *, create_graph: builtins.bool=False, retain_graph: builtins.bool=False) -> None:
        """
        Adds the gradient of this tensor into .grad of every leaf it was computed from.

        Example:
            >>> x = pb.tensor([1.0, 2.0], requires_grad=True)
            >>> (x * x).sum().backward()
            >>> x.grad.tolist()
            [2.0, 4.0]
        """

    def retain_grad(self) -> None:
        """Keeps the gradient of a result, not only of leaves, in .grad."""

    def _register_hook(self, arg: object, /) -> int:
        ...

    def _remove_hook(self, arg: int, /) -> None:
        ...

    def abs(self) -> Tensor:
        ...

    def acos(self) -> Tensor:
        ...

    def all(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def any(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def argmax(self, axis: object | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def argmin(self, axis: object | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def argsort(self, *, axis: int=-1, descending: builtins.bool=False, stable: builtins.bool=True) -> Tensor:
        ...

    def asin(self) -> Tensor:
        ...

    def atan(self) -> Tensor:
        ...

    def broadcast_to(self, shape: int | Sequence[int]) -> Tensor:
        ...

    def ceil(self) -> Tensor:
        ...

    def clip(self, min: object | None=None, max: object | None=None) -> Tensor:
        ...

    def cos(self) -> Tensor:
        ...

    def cosh(self) -> Tensor:
        ...

    def cumulative_sum(self, axis: object | None=None, *, dtype: object | None=None, include_initial: builtins.bool=False) -> Tensor:
        ...

    def divide(self, b: Tensor | complex | object) -> Tensor:
        ...

    def equal(self, b: Tensor | complex | object) -> Tensor:
        ...

    def erf(self) -> Tensor:
        ...

    def erfc(self) -> Tensor:
        ...

    def exp(self) -> Tensor:
        ...

    def expand_dims(self, axis: int=0) -> Tensor:
        ...

    def expm1(self) -> Tensor:
        ...

    def flatten(self, start_axis: int=0) -> Tensor:
        ...

    def flip(self, axis: int | Sequence[int] | None=None) -> Tensor:
        ...

    def floor(self) -> Tensor:
        ...

    def floor_divide(self, b: Tensor | complex | object) -> Tensor:
        ...

    def greater(self, b: Tensor | complex | object) -> Tensor:
        ...

    def greater_equal(self, b: Tensor | complex | object) -> Tensor:
        ...

    def isfinite(self) -> Tensor:
        ...

    def isinf(self) -> Tensor:
        ...

    def isnan(self) -> Tensor:
        ...

    def less(self, b: Tensor | complex | object) -> Tensor:
        ...

    def less_equal(self, b: Tensor | complex | object) -> Tensor:
        ...

    def log(self) -> Tensor:
        ...

    def log10(self) -> Tensor:
        ...

    def log1p(self) -> Tensor:
        ...

    def log2(self) -> Tensor:
        ...

    def log_softmax(self, axis: int=-1) -> Tensor:
        ...

    def logical_and(self, b: Tensor | complex | object) -> Tensor:
        ...

    def logical_not(self) -> Tensor:
        ...

    def logical_or(self, b: Tensor | complex | object) -> Tensor:
        ...

    def logical_xor(self, b: Tensor | complex | object) -> Tensor:
        ...

    def logsumexp(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def matmul(self, x2: Tensor | complex | object) -> Tensor:
        ...

    def matrix_transpose(self) -> Tensor:
        ...

    def max(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def maximum(self, b: Tensor | complex | object) -> Tensor:
        ...

    def mean(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def min(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def minimum(self, b: Tensor | complex | object) -> Tensor:
        ...

    def moveaxis(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
        ...

    def multiply(self, b: Tensor | complex | object) -> Tensor:
        ...

    def negative(self) -> Tensor:
        ...

    def norm(self, ord: float=2.0, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def not_equal(self, b: Tensor | complex | object) -> Tensor:
        ...

    def outer(self, x2: Tensor | complex | object) -> Tensor:
        ...

    def positive(self) -> Tensor:
        ...

    def pow(self, b: Tensor | complex | object) -> Tensor:
        ...

    def prod(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def reciprocal(self) -> Tensor:
        ...

    def relu(self, *, saved: str | None=None) -> Tensor:
        ...

    def remainder(self, b: Tensor | complex | object) -> Tensor:
        ...

    def repeat(self, repeats: Tensor | complex | object, *, axis: object | None=None) -> Tensor:
        ...

    def roll(self, shift: int | Sequence[int], *, axis: int | Sequence[int] | None=None) -> Tensor:
        ...

    def round(self) -> Tensor:
        ...

    def rsqrt(self) -> Tensor:
        ...

    def sigmoid(self, *, saved: str | None=None) -> Tensor:
        ...

    def sign(self) -> Tensor:
        ...

    def sin(self) -> Tensor:
        ...

    def sinh(self) -> Tensor:
        ...

    def softmax(self, axis: int=-1) -> Tensor:
        ...

    def sort(self, *, axis: int=-1, descending: builtins.bool=False, stable: builtins.bool=True) -> Tensor:
        ...

    def split(self, sections: object, axis: int=0) -> list:
        ...

    def sqrt(self) -> Tensor:
        ...

    def square(self) -> Tensor:
        ...

    def squeeze(self, axis: int | Sequence[int] | None=None) -> Tensor:
        ...

    def std(self, axis: int | Sequence[int] | None=None, *, correction: float=0.0, keepdims: builtins.bool=False) -> Tensor:
        ...

    def subtract(self, b: Tensor | complex | object) -> Tensor:
        ...

    def sum(self, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
        ...

    def take(self, indices: Tensor | complex | object, *, axis: object | None=None) -> Tensor:
        ...

    def take_along_axis(self, indices: Tensor | complex | object, axis: int=-1) -> Tensor:
        ...

    def tan(self) -> Tensor:
        ...

    def tanh(self, *, saved: str | None=None) -> Tensor:
        ...

    def tensordot(self, x2: Tensor | complex | object, *, axes: object=2) -> Tensor:
        ...

    def tile(self, repetitions: int | Sequence[int]) -> Tensor:
        ...

    def topk(self, k: int, *, axis: int=-1) -> tuple[Tensor, Tensor]:
        ...

    def trunc(self) -> Tensor:
        ...

    def unstack(self, *, axis: int=0) -> tuple:
        ...

    def var(self, axis: int | Sequence[int] | None=None, *, correction: float=0.0, keepdims: builtins.bool=False) -> Tensor:
        ...

    def vecdot(self, x2: Tensor | complex | object, *, axis: int=-1) -> Tensor:
        ...

    def register_hook(self, f: Callable[[Tensor], Tensor | None]) -> Any:
        ...

def tensor(data: object | None, *, dtype: object | None=None, device: object | None=None, requires_grad: builtins.bool=False) -> Tensor:
    """
    A new tensor with a copy of the data; Python floats give float32.

    Example:
        >>> pb.tensor([1.0, 2.0]).tolist()
        [1.0, 2.0]
    """

def asarray(obj: object | None, *, dtype: object | None=None, device: object | None=None, copy: object | None=None) -> Tensor:
    """
    A tensor that shares memory with NumPy and DLPack producers where it can.
    """

def frombuffer(buffer: object, dtype: DTypeOf, shape: int | Sequence[int]) -> Tensor:
    """A tensor with a copy of raw bytes in C order."""

def empty(shape: int | Sequence[int], *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """A tensor whose values are not set; dtype float32 unless given."""

def zeros(shape: int | Sequence[int], *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """
    Zeros; dtype float32 unless given.

    Example:
        >>> pb.zeros((2,)).tolist()
        [0.0, 0.0]
    """

def ones(shape: int | Sequence[int], *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """
    Ones; dtype float32 unless given.

    Example:
        >>> pb.ones(2, dtype=pb.int8).tolist()
        [1, 1]
    """

def full(shape: int | Sequence[int], fill_value: Tensor | complex | object, *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """
    One value everywhere; its dtype unless given (float32 for a Python float).

    Example:
        >>> pb.full((2,), 7).tolist()
        [7, 7]
    """

def arange(start: object, stop: object | None=None, step: object=1, *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """
    Values from start (0 if only one is given) up to, without, stop in steps; int64, or float32 for floats.

    Example:
        >>> pb.arange(1, 7, 2).tolist()
        [1, 3, 5]
    """

def linspace(start: object, stop: object, num: int, *, dtype: object | None=None, device: object | None=None, endpoint: builtins.bool=True) -> Tensor:
    """
    num evenly spaced values from start to stop.

    Example:
        >>> pb.linspace(0, 1, 3).tolist()
        [0.0, 0.5, 1.0]
    """

def eye(n_rows: int, n_cols: object | None=None, *, k: int=0, dtype: object | None=None, device: object | None=None) -> Tensor:
    """A matrix with ones on its k-th diagonal."""

def tril(x: Tensor | complex | object, *, k: int=0) -> Tensor:
    """
    The elements on and below the k-th diagonal of the last two axes, else 0.
    """

def triu(x: Tensor | complex | object, *, k: int=0) -> Tensor:
    """
    The elements on and above the k-th diagonal of the last two axes, else 0.
    """

def zeros_like(x: Tensor | complex | object, *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """Zeros with the shape and dtype of x."""

def ones_like(x: Tensor | complex | object, *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """Ones with the shape and dtype of x."""

def empty_like(x: Tensor | complex | object, *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """A tensor with the shape and dtype of x whose values are not set."""

def full_like(x: Tensor | complex | object, fill_value: Tensor | complex | object, *, dtype: object | None=None, device: object | None=None) -> Tensor:
    """One value everywhere, with the shape and dtype of x."""

def meshgrid(*arrays, indexing: str='xy') -> list:
    """
    Coordinate tensors of a grid, one view per 1-d input; indexing is 'xy' or 'ij'.

    Example:
        >>> [g.tolist() for g in pb.meshgrid(pb.arange(2), pb.arange(2))]
        [[[0, 1], [0, 1]], [[0, 0], [1, 1]]]
    """

def promote_types(a: DTypeOf, b: DTypeOf) -> DTypeOf:
    """The dtype that both are promoted to; see pb.result_type."""

def memory_stats() -> dict:
    """
    Bytes in use, at most, reserved; numbers of allocations, system calls, tensors and nodes.
    """

def reset_peak_memory() -> None:
    """Sets the peak of memory_stats to what is in use now."""

def empty_cache() -> None:
    """Gives the free blocks that the allocator keeps back to the system."""

def add(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Sum of two tensors."""

def subtract(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Difference a - b."""

def multiply(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Product of two tensors."""

def divide(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Quotient a / b, always floating."""

def negative(x: Tensor | complex | object) -> Tensor:
    """-x."""

def positive(x: Tensor | complex | object) -> Tensor:
    """x itself, copied."""

def pow(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a to the power b; at a = 0 the gradient of b is 0 for b >= 0."""

def floor_divide(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """floor(a / b); for integers a division by 0 gives 0."""

def remainder(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a - b * floor(a / b), with the sign of b."""

def maximum(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """The larger of a and b; NaN propagates; ties share."""

def minimum(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """The smaller of a and b; NaN propagates; ties share."""

def less(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a < b."""

def less_equal(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a <= b."""

def greater(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a > b."""

def greater_equal(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a >= b."""

def equal(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a == b."""

def not_equal(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a != b."""

def logical_and(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Both are non-zero."""

def logical_or(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """At least one is non-zero."""

def logical_xor(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Exactly one is non-zero."""

def logical_not(x: Tensor | complex | object) -> Tensor:
    """x is zero."""

def bitwise_and(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Bits set in both; integers and bool."""

def bitwise_or(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Bits set in at least one; integers and bool."""

def bitwise_xor(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Bits set in exactly one; integers and bool."""

def where(condition: Tensor | complex | object, a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """a where the condition holds, else b."""

def isnan(x: Tensor | complex | object) -> Tensor:
    """x is NaN."""

def isinf(x: Tensor | complex | object) -> Tensor:
    """x is an infinity."""

def isfinite(x: Tensor | complex | object) -> Tensor:
    """x is neither NaN nor an infinity."""

def abs(x: Tensor | complex | object) -> Tensor:
    """Absolute value; derivative 0 at 0."""

def square(x: Tensor | complex | object) -> Tensor:
    """x * x."""

def sign(x: Tensor | complex | object) -> Tensor:
    """-1, 0 or 1; NaN stays NaN."""

def sqrt(x: Tensor | complex | object) -> Tensor:
    """Square root."""

def rsqrt(x: Tensor | complex | object) -> Tensor:
    """1 / sqrt(x)."""

def reciprocal(x: Tensor | complex | object) -> Tensor:
    """1 / x."""

def exp(x: Tensor | complex | object) -> Tensor:
    """e to the power x."""

def expm1(x: Tensor | complex | object) -> Tensor:
    """exp(x) - 1, exact near 0."""

def log(x: Tensor | complex | object) -> Tensor:
    """Natural logarithm."""

def log1p(x: Tensor | complex | object) -> Tensor:
    """log(1 + x), exact near 0."""

def log2(x: Tensor | complex | object) -> Tensor:
    """Logarithm to base 2."""

def log10(x: Tensor | complex | object) -> Tensor:
    """Logarithm to base 10."""

def sin(x: Tensor | complex | object) -> Tensor:
    """Sine."""

def cos(x: Tensor | complex | object) -> Tensor:
    """Cosine."""

def tan(x: Tensor | complex | object) -> Tensor:
    """Tangent."""

def sinh(x: Tensor | complex | object) -> Tensor:
    """Hyperbolic sine."""

def cosh(x: Tensor | complex | object) -> Tensor:
    """Hyperbolic cosine."""

def asin(x: Tensor | complex | object) -> Tensor:
    """Inverse sine."""

def acos(x: Tensor | complex | object) -> Tensor:
    """Inverse cosine."""

def atan(x: Tensor | complex | object) -> Tensor:
    """Inverse tangent."""

def erf(x: Tensor | complex | object) -> Tensor:
    """Error function."""

def erfc(x: Tensor | complex | object) -> Tensor:
    """1 - erf(x), exact in the tail."""

def _normal_cdf(x: Tensor | complex | object) -> Tensor:
    """The normal distribution function, (1 + erf(x / sqrt(2))) / 2."""

def floor(x: Tensor | complex | object) -> Tensor:
    """The largest integer not above x."""

def ceil(x: Tensor | complex | object) -> Tensor:
    """The smallest integer not below x."""

def round(x: Tensor | complex | object) -> Tensor:
    """The nearest integer, halves to even."""

def trunc(x: Tensor | complex | object) -> Tensor:
    """x without its fraction."""

def _clip(x: Tensor | complex | object, *, min: float=-1, max: float=1) -> Tensor:
    """x limited to [min, max]; derivative 1 at the bounds."""

def relu(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """max(x, 0); derivative 0 at 0."""

def leaky_relu(x: Tensor | complex | object, *, negative_slope: float=0.01, saved: str | None=None) -> Tensor:
    """x for x > 0, else negative_slope * x."""

def elu(x: Tensor | complex | object, *, alpha: float=1, saved: str | None=None) -> Tensor:
    """x for x > 0, else alpha * (exp(x) - 1)."""

def celu(x: Tensor | complex | object, *, alpha: float=1, saved: str | None=None) -> Tensor:
    """x for x > 0, else alpha * (exp(x / alpha) - 1)."""

def selu(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """Self-normalising ELU: scale * (x or alpha * (exp(x) - 1))."""

def gelu(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """x * Phi(x), Phi the normal distribution function."""

def gelu_tanh(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """The tanh approximation of gelu."""

def silu(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """Sigmoid-weighted linear unit, x * sigmoid(x)."""

def mish(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """x * tanh(softplus(x))."""

def softplus(x: Tensor | complex | object, *, beta: float=1, threshold: float=20, saved: str | None=None) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""

def softsign(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """x / (1 + |x|)."""

def tanh(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """Hyperbolic tangent."""

def tanhshrink(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """x - tanh(x)."""

def sigmoid(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """1 / (1 + exp(-x))."""

def log_sigmoid(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """log(sigmoid(x)), finite for every finite x."""

def hardtanh(x: Tensor | complex | object, *, min_val: float=-1, max_val: float=1, saved: str | None=None) -> Tensor:
    """x limited to [min_val, max_val]."""

def relu6(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """x limited to [0, 6]."""

def hardsigmoid(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """relu6(x + 3) / 6."""

def hardswish(x: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """x * relu6(x + 3) / 6."""

def silu_mul(a: Tensor | complex | object, b: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """silu(a) * b, the gate of SwiGLU."""

def gelu_mul(a: Tensor | complex | object, b: Tensor | complex | object, *, saved: str | None=None) -> Tensor:
    """gelu(a) * b, the gate of GEGLU."""

def _dropout(x: Tensor | complex | object, *, p: float=0.5, rng: Generator | None=None) -> Tensor:
    """x / (1 - p) with probability 1 - p, else 0."""

def _uniform(*, low: float=0, high: float=1, rng: Generator | None=None) -> Tensor:
    """Uniform in (low, high)."""

def _normal(*, mean: float=0, std: float=1, rng: Generator | None=None) -> Tensor:
    """Normal by the inverse distribution function."""

def _exponential(*, rate: float=1, unused: float=0, rng: Generator | None=None) -> Tensor:
    """Exponential of the given rate."""

def _gumbel(*, loc: float=0, scale: float=1, rng: Generator | None=None) -> Tensor:
    """Standard Gumbel times scale plus loc."""

def _bernoulli(x: Tensor | complex | object, *, rng: Generator | None=None) -> Tensor:
    """1 with probability x, else 0."""

def _squared_error(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """(a - b) squared."""

def _absolute_error(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """|a - b|; derivative 0 where they are equal."""

def _huber(a: Tensor | complex | object, b: Tensor | complex | object, *, delta: float=1) -> Tensor:
    """d^2 / 2 for |d| <= delta, else delta * (|d| - delta / 2)."""

def _smooth_l1(a: Tensor | complex | object, b: Tensor | complex | object, *, beta: float=1) -> Tensor:
    """d^2 / (2 beta) for |d| < beta, else |d| - beta / 2."""

def _bce_with_logits(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """Binary cross entropy of logit a and target b in [0, 1]."""

def _kl_div(a: Tensor | complex | object, b: Tensor | complex | object) -> Tensor:
    """b * (log(b) - a): a is a log-probability, b a probability."""

def sum(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """Sum over axes; integers and bools give 64-bit integers."""

def mean(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """Arithmetic mean over axes."""

def max(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """Largest element over axes; NaN propagates; ties share."""

def min(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """Smallest element over axes; NaN propagates; ties share."""

def any(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """At least one element is non-zero."""

def all(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """Every element is non-zero."""

def prod(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """
    Product over axes; integers and bools multiply in 64 bits.

    Example:
        >>> pb.prod(pb.asarray([2.0, 3.0])).item()
        6.0
    """

def var(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, *, correction: float=0.0, keepdims: builtins.bool=False) -> Tensor:
    """
    Variance over axes, divided by n - correction.

    Example:
        >>> pb.var(pb.asarray([1.0, 3.0])).item()
        1.0
    """

def std(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, *, correction: float=0.0, keepdims: builtins.bool=False) -> Tensor:
    """
    Standard deviation over axes: the root of var.

    Example:
        >>> pb.std(pb.asarray([1.0, 3.0]), correction=0).item()
        1.0
    """

def logsumexp(x: Tensor | complex | object, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """
    log(sum(exp(x))), without overflow.

    Example:
        >>> pb.logsumexp(pb.asarray([1000.0, -1000.0])).item()
        1000.0
    """

def norm(x: Tensor | complex | object, ord: float=2.0, axis: int | Sequence[int] | None=None, keepdims: builtins.bool=False) -> Tensor:
    """
    Vector norm of order ord (any number, inf, -inf; 0 counts); its gradient at 0 is 0.

    Example:
        >>> pb.norm(pb.asarray([3.0, 4.0])).item()
        5.0
    """

def ops() -> list:
    """The registry: a list with one dict per op."""

def op(name: str) -> Any:
    """
    The element-wise op of this name, also one that an extension registered after the import.
    """

def reshape(x: Tensor | complex | object, shape: int | Sequence[int]) -> Tensor:
    """
    The same elements in another shape; one size may be -1. A view where strides allow.

    Example:
        >>> pb.reshape(pb.arange(6), (2, -1)).shape
        (2, 3)
    """

def permute_dims(x: Tensor | complex | object, axes: int | Sequence[int]) -> Tensor:
    """
    The axes in another order, as a view: axis i of the result is axis axes[i] of x.

    Example:
        >>> pb.permute_dims(pb.zeros((2, 3, 4)), (2, 0, 1)).shape
        (4, 2, 3)
    """

def matrix_transpose(x: Tensor | complex | object) -> Tensor:
    """The last two axes exchanged, as a view."""

def moveaxis(x: Tensor | complex | object, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """
    Axes at other places, the others in their order; a view.

    Example:
        >>> pb.moveaxis(pb.zeros((2, 3, 4)), 0, -1).shape
        (3, 4, 2)
    """

def expand_dims(x: Tensor | complex | object, axis: int=0) -> Tensor:
    """
    A new axis of size 1 at `axis` of the result, as a view.

    Example:
        >>> pb.expand_dims(pb.zeros(3), -1).shape
        (3, 1)
    """

def squeeze(x: Tensor | complex | object, axis: int | Sequence[int] | None=None) -> Tensor:
    """
    Without the named axes, which must have size 1 (None: every axis of size 1), as a view.

    Example:
        >>> pb.squeeze(pb.zeros((1, 3, 1)), 0).shape
        (3, 1)
    """

def broadcast_to(x: Tensor | complex | object, shape: int | Sequence[int]) -> Tensor:
    """
    x repeated to a shape by stride 0, as a view.

    Example:
        >>> pb.broadcast_to(pb.asarray([1, 2]), (2, 2)).tolist()
        [[1, 2], [1, 2]]
    """

def flip(x: Tensor | complex | object, axis: int | Sequence[int] | None=None) -> Tensor:
    """
    The elements along the axes (None: all) in reverse order, as a view.

    Example:
        >>> pb.flip(pb.arange(3)).tolist()
        [2, 1, 0]
    """

def flatten(x: Tensor | complex | object, start_axis: int=0) -> Tensor:
    """
    The axes from start_axis on as one.

    Example:
        >>> pb.flatten(pb.zeros((2, 3, 4)), 1).shape
        (2, 12)
    """

def split(x: Tensor | complex | object, sections: object, axis: int=0) -> list:
    """
    Views of equal parts (an int) or of the parts between cut positions (a list), as a list.

    Example:
        >>> [p.tolist() for p in pb.split(pb.arange(5), [2, 3])]
        [[0, 1], [2], [3, 4]]
    """

def unstack(x: Tensor | complex | object, *, axis: int=0) -> tuple:
    """The slices of x along an axis, as a tuple of copies without that axis."""

def concat(arrays: object, axis: object | None=0) -> Tensor:
    """
    The arrays one after the other along an existing axis (None: each flattened).

    Example:
        >>> pb.concat([pb.zeros((1, 2)), pb.ones((2, 2))]).shape
        (3, 2)
    """

def stack(arrays: object, axis: int=0) -> Tensor:
    """
    Arrays of one shape along a new axis.

    Example:
        >>> pb.stack([pb.zeros(2), pb.ones(2)], axis=1).tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """

def pad(x: Tensor | complex | object, widths: object, *, mode: str='constant', value: float=0.0) -> Tensor:
    """
    x with more elements at its borders. widths: an int, (before, after), or one such pair per axis. mode: constant,
    edge, reflect, symmetric or wrap, as numpy.pad.

    Example:
        >>> pb.pad(pb.asarray([1, 2]), (1, 2)).tolist()
        [0, 1, 2, 0, 0]
    """

def tile(x: Tensor | complex | object, repetitions: int | Sequence[int]) -> Tensor:
    """
    x side by side, repetitions[i] times along axis i.

    Example:
        >>> pb.tile(pb.arange(2), 2).tolist()
        [0, 1, 0, 1]
    """

def repeat(x: Tensor | complex | object, repeats: Tensor | complex | object, *, axis: object | None=None) -> Tensor:
    """
    Each element several times; repeats is one count or one per element of the axis (None: of flat x).

    Example:
        >>> pb.repeat(pb.arange(2), 2).tolist()
        [0, 0, 1, 1]
    """

def roll(x: Tensor | complex | object, shift: int | Sequence[int], *, axis: int | Sequence[int] | None=None) -> Tensor:
    """
    Elements moved by `shift` places (axis None: of flat x), those that fall off come in again at the start.

    Example:
        >>> pb.roll(pb.arange(4), 1).tolist()
        [3, 0, 1, 2]
    """

def clip(x: Tensor | complex | object, min: object | None=None, max: object | None=None) -> Tensor:
    """
    x limited to [min, max], numbers or tensors; derivative 1 at the bounds.

    Example:
        >>> pb.clip(pb.asarray([-2.0, 0.5]), -1.0, 1.0).tolist()
        [-1.0, 0.5]
    """

def take(x: Tensor | complex | object, indices: Tensor | complex | object, *, axis: object | None=None) -> Tensor:
    """
    x[..., indices, ...] at `axis` (None: of flat x); negative indices count from the end.

    Example:
        >>> pb.take(pb.asarray([5, 6, 7]), pb.asarray([2, 0])).tolist()
        [7, 5]
    """

def embedding(indices: Tensor | complex | object, weight: Tensor | complex | object) -> Tensor:
    """
    Rows of weight (n, width) by integer indices of any shape: the result has the shape (*indices.shape, width).

    Example:
        >>> pb.embedding(pb.asarray([1, 1]), pb.asarray([[0.0], [2.0]])).tolist()
        [[2.0], [2.0]]
    """

def take_along_axis(x: Tensor | complex | object, indices: Tensor | complex | object, axis: int=-1) -> Tensor:
    """
    out[.., i, ..] = x[.., indices[.., i, ..], ..]; the other axes broadcast.

    Example:
        >>> pb.take_along_axis(pb.asarray([[5, 6], [7, 8]]), pb.asarray([[1], [0]])).tolist()
        [[6], [7]]
    """

def scatter_add(x: Tensor | complex | object, indices: Tensor | complex | object, values: Tensor | complex | object, *, axis: int) -> Tensor:
    """
    A copy of x with values added at the places that take_along_axis reads; equal indices add up.

    Example:
        >>> pb.scatter_add(pb.zeros(2), pb.asarray([1, 1]), pb.ones(2), axis=0).tolist()
        [0.0, 2.0]
    """

def _broadcast_shapes(a: int | Sequence[int], b: int | Sequence[int]) -> int | Sequence[int]:
    ...

def from_dlpack(x: object, *, device: object | None=None, copy: object | None=None) -> Tensor:
    """
    A tensor on the memory of any DLPack producer (NumPy, PyTorch, JAX), without a copy.

    Example:
        >>> import numpy as np
        >>> pb.from_dlpack(np.ones(2)).tolist()
        [1.0, 1.0]
    """

class _Rows:

    def __iter__(self) -> Any:
        ...

    def __next__(self) -> Tensor:
        ...

    def __length_hint__(self) -> int:
        ...

def _rebuild(arg0: object, arg1: bytes, arg2: DTypeOf, arg3: int | Sequence[int], arg4: builtins.bool, /) -> Any:
    ...

def matmul(x1: Tensor | complex | object, x2: Tensor | complex | object) -> Tensor:
    """
    Matrix product (..., m, k) @ (..., k, n) -> (..., m, n).

    Leading axes broadcast; a 1-d operand is a row (first) or a column (second) whose axis is
    dropped again. Integers are exact modulo their width; 16-bit floats are summed in float32.
    Raises ShapeError when the inner sizes differ.

    Example:
        >>> pb.matmul(pb.ones((2, 3)), pb.ones((3, 4))).shape
        (2, 4)
    """

def linear(x: Tensor | complex | object, weight: Tensor | complex | object, bias: object | None=None, *, saved: object | None=None) -> Tensor:
    """
    x @ weight.mT + bias: x (..., in), weight (out, in), bias (out,) -> (..., out).

    saved: 4 or 8 keeps x for backward in blocks of that many bits, rounded without bias.
    Raises ShapeError when the sizes do not fit, ValueError for another saved.

    Example:
        >>> pb.linear(pb.ones((5, 3)), pb.ones((2, 3)), pb.zeros(2)).shape
        (5, 2)
    """

def tensordot(x1: Tensor | complex | object, x2: Tensor | complex | object, *, axes: object=2) -> Tensor:
    """
    Sum of products over pairs of axes.

    axes: an int n pairs the last n axes of x1 with the first n of x2; a pair of sequences names them.
    The result has the other axes of x1, then those of x2.

    Example:
        >>> pb.tensordot(pb.ones((2, 3, 4)), pb.ones((3, 4, 5)), axes=2).shape
        (2, 5)
    """

def vecdot(x1: Tensor | complex | object, x2: Tensor | complex | object, *, axis: int=-1) -> Tensor:
    """
    Sum of products over one axis; the other axes broadcast.

    Example:
        >>> pb.vecdot(pb.ones((2, 3)), pb.ones(3)).tolist()
        [3.0, 3.0]
    """

def outer(x1: Tensor | complex | object, x2: Tensor | complex | object) -> Tensor:
    """
    All products of two 1-d tensors: (m,), (n,) -> (m, n).

    Example:
        >>> pb.outer(pb.ones(2), pb.ones(3)).shape
        (2, 3)
    """

def einsum(subscripts: str, *operands) -> Tensor:
    """
    Sums of products by index letters, as NumPy's einsum.

    subscripts: one term per operand, letters name axes, a letter twice in a term takes the diagonal, '...'
    stands for leading axes that broadcast; '->' gives the output axes, else those are the letters that occur
    once, sorted. Raises ShapeError for sizes that differ, ValueError for a malformed string.

    Example:
        >>> pb.einsum('bij,bjk->bik', pb.ones((4, 2, 3)), pb.ones((4, 3, 5))).shape
        (4, 2, 5)
    """

def conv2d(x: Tensor | complex | object, weight: Tensor | complex | object, bias: object | None=None, *, stride: int | Sequence[int]=1, padding: int | Sequence[int]=0, dilation: int | Sequence[int]=1, groups: int=1, saved: object | None=None) -> Tensor:
    """
    Cross-correlation of x (n, c, h, w) with weight (o, c / groups, kh, kw), plus bias (o). stride, padding and dilation are ints or pairs (height, width). The result has the shape (n, o, oh, ow) with oh = (h + 2 padding - dilation (kh - 1) - 1) // stride + 1. saved: 4 or 8 keeps x for backward in blocks of that many bits, rounded without bias.
    """

def conv1d(x: Tensor | complex | object, weight: Tensor | complex | object, bias: object | None=None, *, stride: int | Sequence[int]=1, padding: int | Sequence[int]=0, dilation: int | Sequence[int]=1, groups: int=1, saved: object | None=None) -> Tensor:
    """
    Cross-correlation of x (n, c, length) with weight (o, c / groups, k), plus bias (o).
    """

def conv_transpose2d(x: Tensor | complex | object, weight: Tensor | complex | object, bias: object | None=None, *, stride: int | Sequence[int]=1, padding: int | Sequence[int]=0, output_padding: int | Sequence[int]=0, dilation: int | Sequence[int]=1, groups: int=1) -> Tensor:
    """
    The transpose of conv2d in its input: x (n, c, h, w), weight (c, o / groups, kh, kw), bias (o). The result has the height (h - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1.
    """

def max_pool2d(x: Tensor | complex | object, size: int | Sequence[int], *, stride: int | Sequence[int] | None=None, padding: int | Sequence[int]=0) -> Tensor:
    """
    The largest cell of each window of the last two axes. x: (..., h, w) with 3 or 4 axes; size, stride (default: size) and padding are ints or pairs. Padding counts as -inf, NaN propagates; of equal cells the first takes the gradient.
    """

def avg_pool2d(x: Tensor | complex | object, size: int | Sequence[int], *, stride: int | Sequence[int] | None=None, padding: int | Sequence[int]=0) -> Tensor:
    """
    The mean of each window of the last two axes; padding counts as zeros. Arguments as for max_pool2d.
    """

def adaptive_avg_pool2d(x: Tensor | complex | object, size: int | Sequence[int]) -> Tensor:
    """
    The means of size[0] x size[1] nearly equal parts of the last two axes (an int means a square).
    """

def softmax(x: Tensor | complex | object, axis: int=-1) -> Tensor:
    """
    exp(x) / sum(exp(x)) along axis, without overflow. A row of -inf gives NaN.
    """

def log_softmax(x: Tensor | complex | object, axis: int=-1) -> Tensor:
    """log(softmax(x)) along axis, without overflow."""

def layer_norm(x: Tensor | complex | object, weight: object | None=None, bias: object | None=None, *, axis: int | Sequence[int] | None=-1, eps: float=1e-05) -> Tensor:
    """
    (x - mean) / sqrt(var + eps) * weight + bias over the last axes (an int or a tuple); weight and bias have the shape of those axes.
    """

def rms_norm(x: Tensor | complex | object, weight: object | None=None, *, axis: int | Sequence[int] | None=-1, eps: float=1e-06) -> Tensor:
    """
    x / sqrt(mean(x * x) + eps) * weight over the last axes (an int or a tuple).
    """

def group_norm(x: Tensor | complex | object, groups: int, weight: object | None=None, bias: object | None=None, *, eps: float=1e-05) -> Tensor:
    """
    Normalises each of `groups` groups of channels of x (N, C, ...); weight and bias have shape (C,).
    """

def batch_norm(x: Tensor | complex | object, running_mean: object | None, running_var: object | None, weight: object | None=None, bias: object | None=None, *, training: builtins.bool=False, momentum: float=0.1, eps: float=1e-05) -> Tensor:
    """
    Normalises each channel of x (N, C, ...). Training uses the batch's mean and variance and writes the running tensors: running = (1 - momentum) * running + momentum * new, with the unbiased variance.
    """

def _cross_entropy(x: Tensor | complex | object, target: Tensor | complex | object, axis: int, weight: object | None, ignore_index: object | None, label_smoothing: float, reduction: str) -> Tensor:
    ...

def _nll(x: Tensor | complex | object, target: Tensor | complex | object, axis: int, weight: object | None, ignore_index: object | None, label_smoothing: float, reduction: str) -> Tensor:
    ...

def argmax(x: Tensor | complex | object, axis: object | None=None, keepdims: builtins.bool=False) -> Tensor:
    """
    Index of the largest element (the first of equals, NaN is largest); None: of the flattened x.
    """

def argmin(x: Tensor | complex | object, axis: object | None=None, keepdims: builtins.bool=False) -> Tensor:
    """
    Index of the smallest element (the first of equals, NaN is smallest); None: of the flattened x.
    """

def cumulative_sum(x: Tensor | complex | object, axis: object | None=None, *, dtype: object | None=None, include_initial: builtins.bool=False) -> Tensor:
    """
    Running sum along axis (needed unless x has one dimension); integers and bools sum in 64 bits.
    """

def sort(x: Tensor | complex | object, *, axis: int=-1, descending: builtins.bool=False, stable: builtins.bool=True) -> Tensor:
    """
    x in order along axis; NaN counts as the largest. The order of equal elements is always kept.
    """

def argsort(x: Tensor | complex | object, *, axis: int=-1, descending: builtins.bool=False, stable: builtins.bool=True) -> Tensor:
    """Indices (int64) that sort x along axis; NaN counts as the largest."""

def topk(x: Tensor | complex | object, k: int, *, axis: int=-1) -> tuple[Tensor, Tensor]:
    """
    The k largest elements along axis, largest first, as (values, indices); NaN counts as the largest.
    """

def scaled_dot_product_attention(q: Tensor | complex | object, k: Tensor | complex | object, v: Tensor | complex | object, mask: object | None=None, *, causal: builtins.bool=False, scale: object | None=None, dropout: float=0.0, rng: object | None=None, saved: object | None=None) -> Tensor:
    """
    softmax(q k^T * scale) v for q (..., L, D), k (..., S, D), v (..., S, E); scale is 1 / sqrt(D) unless given. A bool mask is True where a query attends, a float mask is added; causal: query i sees keys 0..i. A query that attends to nothing gives 0. saved: 4 or 8 keeps q, k, v and the result in blocks of that many bits, where the blocked kernel runs (float32, at least 4 heads, no mask, no dropout).
    """

class Generator:
    """
    A counter-based stream of random numbers (Philox 4x32-10).

    Example:
        >>> g = pb.random.Generator(3)
        >>> g.get_state()
        (3, 0)
    """

    def __init__(self, seed: object=0) -> None:
        ...

    def __getstate__(self) -> tuple:
        ...

    def __setstate__(self, arg: tuple, /) -> None:
        ...

    def get_state(self) -> tuple[int, int]:
        """(seed, offset)."""

    def set_state(self, state: tuple[int, int]) -> None:
        """
        Continues from what get_state gave. `roundings` goes on: no two passes round alike.
        """

    def reserve(self, n: int) -> int:
        """Skips n numbers; returns the counter before."""

    @property
    def seed(self) -> int:
        """The seed."""

    @seed.setter
    def seed(self, arg: int, /) -> None:
        ...

    @property
    def offset(self) -> int:
        """The counter: numbers drawn so far."""

    @offset.setter
    def offset(self, arg: int, /) -> None:
        ...

    @property
    def roundings(self) -> int:
        """How often it rounded what is kept for backward."""

    @roundings.setter
    def roundings(self, arg: int, /) -> None:
        ...

def default_generator() -> Generator:
    """The generator used where rng is None."""

def manual_seed(seed: object) -> None:
    """
    Starts the default generator anew, with a seed in [0, 2^64).

    Example:
        >>> pb.manual_seed(7)
        >>> a = pb.random.normal(3)
        >>> pb.manual_seed(7)
        >>> a.tolist() == pb.random.normal(3).tolist()
        True
    """

def draw_normal(shape: int | Sequence[int], mean: float, std: float, dtype: DTypeOf, rng: object | None=None) -> Tensor:
    """A draw with checked arguments; see pb.random."""

def draw_uniform(shape: int | Sequence[int], low: float, high: float, dtype: DTypeOf, rng: object | None=None) -> Tensor:
    """A draw with checked arguments; see pb.random."""

def draw_exponential(shape: int | Sequence[int], rate: float, unused: float, dtype: DTypeOf, rng: object | None=None) -> Tensor:
    """A draw with checked arguments; see pb.random."""

def draw_gumbel(shape: int | Sequence[int], loc: float, scale: float, dtype: DTypeOf, rng: object | None=None) -> Tensor:
    """A draw with checked arguments; see pb.random."""

def draw_randint(low: int, high: int, shape: int | Sequence[int], dtype: DTypeOf, rng: object | None=None) -> Tensor:
    """Integers in [low, high); see pb.random.randint."""

def draw_permutation(n: int, rng: object | None=None) -> Tensor:
    """0..n-1 in random order; see pb.random.permutation."""

class FewbitCode:

    def __init__(self, bits: int, boundaries: Sequence[float], labels: Sequence[int], levels: Sequence[float], second: Sequence[float]=[], random: builtins.bool=False) -> None:
        ...

    @property
    def bits(self) -> int:
        ...

    @property
    def order(self) -> int:
        ...

    @property
    def random(self) -> builtins.bool:
        ...

def fewbit_pack(codes: Tensor | complex | object, bits: int) -> Tensor:
    ...

def fewbit_unpack(words: Tensor | complex | object, bits: int, n: int) -> Tensor:
    ...

def fewbit_quantise(x: Tensor | complex | object, bits: int) -> Tensor:
    ...

def fewbit_restore(words: Tensor, shape: int | Sequence[int], dtype: DTypeOf, bits: int) -> Tensor:
    ...

def fewbit_forward(name: str, x: Tensor | complex | object, code: FewbitCode, params: dict={}, out: object | None=None, rng: object | None=None) -> tuple:
    ...

def fewbit_backward(dy: Tensor | complex | object, words: Tensor, code: FewbitCode, out: object | None=None) -> Tensor:
    ...

def _bias_act_dropout(x: Tensor | complex | object, bias: object | None, act: str, p: float, rng: object | None, saved: object | None) -> Tensor:
    ...

def _linear_act(x: Tensor | complex | object, weight: Tensor | complex | object, bias: object | None, act: str, saved: object | None) -> Tensor:
    ...

def _gated(op: str, a: Tensor | complex | object, b: Tensor | complex | object, bits: int) -> Tensor:
    ...

def _linear_cross_entropy(x: Tensor | complex | object, weight: Tensor | complex | object, target: Tensor | complex | object, bias: object | None, ignore_index: object | None, label_smoothing: float, reduction: str) -> Tensor:
    ...

def _set_saving(saved: object | None, inputs: object | None, order: int) -> tuple:
    ...

def _set_policy(saved: object | None, inputs: object | None) -> tuple:
    ...

def _restore_saving(arg: tuple, /) -> None:
    ...

class OptimDriver:
    """The table, the states and the step of one optimizer."""

    def __init__(self) -> None:
        ...

    def step(self, groups: list, grads: object | None, clip_norm: object | None, clip_value: object | None, scale: object | None, origins: object | None=None) -> tuple:
        """(norm or None, skipped)."""

    def backward_step(self, loss: Tensor, groups: list, clip_value: object | None) -> None:
        """
        Backward from the loss; each parameter is stepped as soon as its gradient is complete, which is not kept.
        """

    def get_state(self, p: Tensor) -> Any:
        """The step count, the state tensors and the state numbers of p."""

    def set_state(self, p: Tensor, t: int, slots: list, scalars: object=(), rest: object | None=None) -> None:
        """
        Puts back what get_state or stored_state gave; the next step converts it.
        """

    def stored_state(self, p: Tensor) -> Any:
        """As get_state, in the form in which it is kept, and the rest."""

    def forget(self, p: Tensor) -> None:
        """Drops the state of p."""

def optim_rules() -> list:
    """Rows of the registry of update rules."""

def optim_check(rule: int, hyper: list, weight_decay: object) -> None:
    """Raises ValueError for a hyper-parameter out of range."""

def optim_check_parameter(p: Tensor) -> None:
    """Raises unless p is a leaf that an optimizer can write."""

def optim_pure(rule: int, p: Tensor, g: Tensor, slots: list, scalars: list, hyper: list, weight_decay: object, decoupled: builtins.bool, t: int, sums: list) -> tuple:
    """One update without writing: (new p, new slots, new scalars)."""

def optim_pure_sums(rule: int, p: Tensor, g: Tensor, slots: list, scalars: list, hyper: list, weight_decay: object, decoupled: builtins.bool, t: int) -> list:
    """What one tensor adds to the sums of its rule."""

def optim_zero_grad(params: list) -> None:
    """Sets the gradients to None."""

def optim_slot_bytes(p: Tensor, format: int, exact: builtins.bool) -> int:
    """Bytes of one state of p."""

def optim_scalar(v: float) -> Tensor:
    """A 0-d float64 number."""

def optim_count(n: int) -> Tensor:
    """A 0-d int64 step count."""

def optim_zeros_like(p: Tensor) -> Tensor:
    """An empty state of p."""

def optim_copy(targets: list, sources: list) -> None:
    """Copies the values of each source into its target."""

def optim_scale(tensors: list, factor: float) -> None:
    """Multiplies each tensor by factor, in place."""

def optim_limit(tensors: list, bound: float) -> None:
    """Limits each element to [-bound, bound], in place."""

def optim_norm(tensors: list) -> tuple:
    """(sqrt of the sum of squares, whether all elements are finite)."""

def fewbit_solve(derivative: object, weight: object | None, bits: int, scheme: str, lo: float, hi: float, breakpoints: Sequence[float], heights: Sequence[float], edges: Sequence[float]) -> tuple:
    """
    (boundaries, codes, levels, second, error, second_error, max_error) of the best table.
    """

def fewbit_partition(w: Sequence[float], a: Sequence[float], b: Sequence[float], k: int) -> list[int]:
    """Where at most k pieces of a row of cells begin and end."""

def fewbit_cluster(values: Sequence[float], weights: Sequence[float], k: int) -> list[int]:
    """Where at most k clusters of ascending numbers begin and end."""

def optim_add_rule(name: str, doc: str, slots: Sequence[str], exact: int, numbers: Sequence[str], hyper: Sequence[tuple[str, float, int]], shared: builtins.bool, nodes: Sequence[tuple[str, Sequence[int], Sequence[float]]], new_p: int, new_slots: Sequence[int], new_numbers: Sequence[int], sums: Sequence[int]) -> int:
    """Registers a traced rule; returns its index."""

def optim_adopt_state(driver: OptimDriver, p: Tensor, t: int, slots: Sequence[Tensor], numbers: Sequence[float]) -> None:
    """Makes tensors the state of p, without a copy."""

def _gradients(outputs: object, inputs: object, cotangents: object | None, create_graph: builtins.bool, retain_graph: builtins.bool) -> tuple:
    ...

def _depends_on_others(arg0: object, arg1: object, /) -> builtins.bool:
    ...

def _lift(arg: Tensor, /) -> Tensor:
    ...

def _saved(arg: Tensor, /) -> list:
    ...

def stop_gradient(x: Tensor | complex | object) -> Tensor:
    """
    x as a constant: the same memory, no gradient and no tangent.

    Example:
        >>> pb.grad(lambda x: x * pb.stop_gradient(x))(pb.tensor(3.0)).item()
        3.0
    """

def _grad_enabled() -> builtins.bool:
    ...

def _set_grad_enabled(arg: builtins.bool, /) -> builtins.bool:
    ...

def _set_anomaly(arg: builtins.bool, /) -> builtins.bool:
    ...

def _enter_graph() -> int:
    ...

def _leave_graph() -> int:
    ...

def _enter_level() -> int:
    ...

def _leave_level() -> int:
    ...

def _sequence() -> int:
    ...

def _boundary(arg0: object, arg1: int, /) -> list:
    ...

def _custom_boundary(arg0: str, arg1: object, arg2: object, arg3: object, /) -> tuple:
    ...

def _pull_boundary(arg0: object, arg1: object, arg2: object, arg3: builtins.bool, /) -> tuple:
    ...

def _make_dual(x: Tensor, tangent: Tensor, level: int) -> Tensor:
    ...

def _tangent(arg0: Tensor, arg1: int, /) -> Tensor:
    ...

def _strip(arg0: Tensor, arg1: int, /) -> Tensor:
    ...

def _has_tangent(arg: Tensor, /) -> builtins.bool:
    ...

def _custom(name: str, inputs: object, outputs: object, pull: object, push: object | None) -> tuple:
    ...

def _enter_autocast(lower: DTypeOf, on: builtins.bool) -> tuple:
    ...

def _leave_autocast(lower: DTypeOf, on: builtins.bool) -> None:
    ...

def _autocast_state() -> tuple:
    ...

def _autocast(op: str, *tensors) -> Any:
    ...

def _autocast_table() -> list:
    """What pb.autocast does to each op: op, cpu, cuda."""

def _cuda_device_count() -> int:
    """The number of CUDA devices that driver and library find."""

def set_num_threads(n: int) -> None:
    """The number of threads that kernels use."""

def get_num_threads() -> int:
    """The number of threads that kernels use."""

def _set_profiling(on: builtins.bool) -> None:
    """Starts a new list of events, or stops."""

def _thread_number() -> int:
    """The number of this thread in a profile."""

def _take_profile() -> list:
    """
    (name, start ns, end ns, bytes, sequence number, thread, backward) of each op; the list is empty afterwards.
    """

def _as_method(arg: object, /) -> Any:
    """The function as a class attribute that binds its first argument."""

def isa_level() -> str:
    """The instruction set level in use: v2, v3 or v4."""
