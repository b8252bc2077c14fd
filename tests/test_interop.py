"""Memory shared with NumPy through the buffer protocol and DLPack, and Tensor as a Python object."""

import array
import copy
import ctypes
import gc
import pickle
import subprocess
import sys
import weakref
import zlib

import numpy as np
import pytest

import pullback as pb

DTYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]


class Array(np.ndarray):
    """An array that can be weakly referenced."""


def base(dtype="float64"):
    return (np.arange(60).reshape(3, 4, 5) % 7).astype(dtype)


LAYOUTS = {
    "whole": lambda a: a,
    "strided": lambda a: a[::2, 1:, ::3],
    "negative": lambda a: a[::-1, :, ::-2],
    "offset": lambda a: a[2, 3, 4:],
    "transposed": lambda a: a.T,
    "fortran": np.asfortranarray,
    "0-d": lambda a: a[1, 2, 3, ...],
    "empty": lambda a: a[:, :0],
    "broadcast": lambda a: np.broadcast_to(a[:1], (2, 4, 5)),
    "1-sized": lambda a: a[:1, 1:2],
}


def address(a):
    return a.__array_interface__["data"][0]


@pytest.mark.parametrize("make", [pb.asarray, pb.from_dlpack], ids=["buffer", "dlpack"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_copy_both_ways(make, dtype, layout):
    a = LAYOUTS[layout](base(dtype))
    x = make(a)
    assert x.shape == a.shape and str(x.dtype) == f"pullback.{dtype}"
    np.testing.assert_array_equal(np.array(x.tolist(), dtype=dtype).reshape(a.shape), a)
    if a.size:
        assert x._address == address(a)
    assert x._readonly == (not a.flags.writeable)
    for back in (x.numpy(), np.asarray(x), np.from_dlpack(x), x.__array__()):
        assert back.dtype == a.dtype and back.shape == a.shape
        np.testing.assert_array_equal(back, a)
        assert back.flags.writeable == a.flags.writeable
        if a.size:
            assert address(back) == address(a)


def test_writes_are_seen_on_both_sides():
    a = base()
    x = pb.asarray(a[::-1])
    x[0, 0, 0] = 100.0
    assert a[2, 0, 0] == 100.0
    a[0] = 7.0
    assert x[2].tolist() == np.full((4, 5), 7.0).tolist()
    np.asarray(x)[1] = -1.0
    assert (a[1] == -1).all()


@pytest.mark.parametrize("make", [pb.asarray, pb.from_dlpack], ids=["buffer", "dlpack"])
def test_read_only(make):
    a = base()
    a.flags.writeable = False
    x = make(a)
    for write in (
        lambda: x.__setitem__(0, 1.0),
        lambda: x.__setitem__([0], 1.0),
        lambda: x.__iadd__(1.0),
        lambda: x[1:].__imul__(2.0),
        lambda: x.reshape(-1).__setitem__(0, 1.0),
    ):
        with pytest.raises(ValueError, match="read-only"):
            write()
    with pytest.raises(BufferError, match=r"read-only memory can only be shared from DLPack 1.0 on"):
        x.__dlpack__()
    with pytest.raises((BufferError, TypeError), match=r"read-only|not writable"):
        (ctypes.c_char * 8).from_buffer(x)
    y = pb.tensor(x)
    y[0] = 1.0
    assert not y._readonly


@pytest.mark.parametrize(
    "a",
    [
        base("float64").astype(">f8"),
        base("complex128"),
        base("object"),
        np.array(["a", "b"]),
        np.array([b"a"]),
        np.zeros(2, dtype=[("x", "f4"), ("y", "i4")]),
        np.zeros(2, dtype="datetime64[s]"),
        np.zeros(2, dtype=np.longdouble),
    ],
    ids=lambda a: str(a.dtype)[:12],
)
def test_refused_dtypes(a):
    before = sys.getrefcount(a)
    for make in (pb.asarray, pb.tensor, lambda a: pb.zeros(2) + a):
        with pytest.raises(pb.DTypeError, match="has no dtype of pullback's"):
            make(a)
    assert sys.getrefcount(a) == before
    del make


def test_big_endian_single_bytes_are_fine():
    assert pb.asarray(np.array([1, 2], dtype=">i1")).tolist() == [1, 2]


def test_refused_objects():
    for o, match in [
        ("text", "cannot make a tensor of str"),
        ({}, "cannot make a tensor of dict"),
        (b"abc", "raw bytes have no dtype"),
        (None, "cannot make a tensor of NoneType"),
    ]:
        with pytest.raises(pb.DTypeError, match=match):
            pb.asarray(o)
    with pytest.raises(pb.ShapeError, match="at most 32 dimensions"):
        pb.asarray(np.zeros((1,) * 40))


def test_a_field_of_a_structured_array_is_copied_or_shared():
    s = np.zeros(3, dtype=[("x", "f4"), ("b", "i1"), ("y", "f4")])
    s["y"] = [1, 2, 3]
    assert pb.asarray(s["y"]).tolist() == [1.0, 2.0, 3.0]


def test_other_buffers():
    numbers = array.array("i", [1, 2, 3])
    x = pb.asarray(numbers)
    x[1] = 9
    assert numbers[1] == 9 and x.dtype == pb.int32
    with pytest.raises(BufferError):
        numbers.append(4)  # the export pins it
    del x
    numbers.append(4)
    assert pb.asarray(memoryview(bytearray(b"\x01\x02"))).tolist() == [1, 2]


def test_objects_with_an_array_method():
    class Duck:
        def __array__(self, dtype=None, copy=None):
            return np.arange(3.0)

    assert pb.asarray(Duck()).tolist() == [0.0, 1.0, 2.0]


def test_numpy_scalars_and_lists_of_arrays():
    assert pb.asarray(np.float32(1.5)).shape == () and pb.asarray(np.float32(1.5)).dtype == pb.float32
    assert pb.asarray(np.int16(3)).dtype == pb.int16 and pb.asarray(np.bool_(True)).item() is True
    x = pb.asarray([np.arange(3), np.arange(3, 6)])
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]] and x.dtype == pb.int64
    assert pb.tensor([np.float32(1.0), np.float64(2.0)]).tolist() == [1.0, 2.0]


def test_bfloat16():
    x = pb.asarray([1.5, -2.0, float("nan")]).astype(pb.bfloat16)
    with pytest.raises(pb.DTypeError, match=r"NumPy has no bfloat16(.|\n)*help: cast first"):
        x.numpy()
    with pytest.raises(pb.DTypeError, match="NumPy has no bfloat16"):
        np.asarray(x)
    with pytest.raises(BufferError, match="bfloat16 has no buffer format"):
        memoryview(x)
    y = pb.from_dlpack(x)
    y[0] = 3.0
    assert x[0].item() == 3.0 and y.dtype == pb.bfloat16
    z = pb._core.from_dlpack(x.__dlpack__(max_version=(1, 0)))
    z[1] = 4.0
    assert x[1].item() == 4.0 and z.dtype == pb.bfloat16


def test_bfloat16_arrays_without_a_buffer():
    class Bfloat(np.ndarray):  # as ml_dtypes' arrays look from outside
        dtype = "bfloat16"

        def view(self, dtype):
            return self.bits

    a = np.zeros(3, "datetime64[s]").view(Bfloat)
    a.bits = np.array([0x3F80, 0x4000, 0xBF00], dtype=np.uint16)
    x = pb.asarray(a)
    assert x.dtype == pb.bfloat16 and x.tolist() == [1.0, 2.0, -0.5]
    x[0] = -0.5
    assert a.bits[0] == 0xBF00


# ---- lifetime


@pytest.mark.parametrize("make", [pb.asarray, pb.from_dlpack], ids=["buffer", "dlpack"])
def test_the_array_lives_as_long_as_the_tensor(make):
    a = np.arange(5.0).view(Array)
    ref = weakref.ref(a)
    x = make(a)[1:]
    del a
    gc.collect()
    assert ref() is not None
    assert x.tolist() == [1.0, 2.0, 3.0, 4.0]
    del x
    gc.collect()
    assert ref() is None


def test_the_tensor_lives_as_long_as_the_array():
    for out in (lambda x: x.numpy(), np.asarray, np.from_dlpack, lambda x: np.asarray(x)[::2]):
        x = pb.zeros((1000,))
        start = pb._core.memory_stats()["current"]
        a = out(x)
        ref = weakref.ref(x)
        del x
        gc.collect()
        assert pb._core.memory_stats()["current"] > start - 4000
        a += 1
        assert a.sum() in (1000, 500)
        del a
        gc.collect()
        assert ref() is None
        assert pb._core.memory_stats()["current"] <= start - 4000


def test_reference_counts():
    a = np.arange(6.0)
    before = sys.getrefcount(a)
    for _ in range(100):
        pb.asarray(a)
        pb.from_dlpack(a)
        pb.from_dlpack(a.__dlpack__())
        np.from_dlpack(pb.asarray(a))
        pb.asarray(a).__dlpack__()  # dropped unread
        pb.asarray(a).__dlpack__(max_version=(1, 0))
        pb.asarray(a).numpy()
        np.array(pb.asarray(a))
    gc.collect()
    assert sys.getrefcount(a) == before


def test_errors_leak_nothing():
    a = np.arange(6.0) + 1j
    before = sys.getrefcount(a)
    for _ in range(50):
        with pytest.raises(pb.DTypeError, match="DLPack type code 5 with 128 bits"):
            pb.from_dlpack(a)
    gc.collect()
    assert sys.getrefcount(a) == before


def test_a_capsule_is_read_once():
    for version in (None, (1, 0)):
        c = pb.arange(3).__dlpack__(max_version=version)
        assert ("dltensor_versioned" if version else '"dltensor"') in repr(c)
        x = pb.from_dlpack(c)
        assert "used_dltensor" in repr(c) and x.tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="consumed already"):
            pb.from_dlpack(c)
        del c
        assert x.tolist() == [0, 1, 2]


# ---- the DLPack protocol


def test_dlpack_arguments():
    x = pb.arange(3)
    assert x.__dlpack_device__() == (1, 0)
    assert "versioned" in repr(x.__dlpack__(max_version=(1, 3)))
    assert "versioned" not in repr(x.__dlpack__(max_version=(0, 8)))
    y = pb.from_dlpack(x.__dlpack__(copy=True))
    y[0] = 5
    assert x[0].item() == 0
    assert pb.from_dlpack(x, copy=True)._address != x._address
    assert np.from_dlpack(x, copy=True, device="cpu").tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="a stream was given"):
        x.__dlpack__(stream=1)
    with pytest.raises(BufferError, match="the data lies on the CPU"):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(pb.DeviceError, match="device 'cuda' is not available"):
        pb.from_dlpack(x, device="cuda")


def test_dlpack_producers():
    class OnGpu:
        def __dlpack_device__(self):
            return (10, 0)

        def __dlpack__(self, **kw):
            raise AssertionError("not reached")

    with pytest.raises(pb.DeviceError, match="device type 10"):
        pb.from_dlpack(OnGpu())

    class Old:
        a = np.arange(3)

        def __dlpack_device__(self):
            return self.a.__dlpack_device__()

        def __dlpack__(self, stream=None):
            return self.a.__dlpack__()

    assert pb.from_dlpack(Old()).tolist() == [0, 1, 2]
    assert pb.asarray(Old()).tolist() == [0, 1, 2]

    class Broken(Old):
        def __dlpack__(self, **kw):
            raise BufferError("no")

    with pytest.raises(BufferError, match="no"):
        pb.from_dlpack(Broken())
    with pytest.raises(pb.DTypeError, match="of type int does not speak DLPack"):
        pb.from_dlpack(3)


def test_asarray_copy():
    a = np.arange(3.0)
    assert pb.asarray(a, copy=False)._address == address(a)
    assert pb.asarray(a, copy=True)._address != address(a)
    x = pb.asarray(a)
    assert pb.asarray(x) is x and pb.asarray(x, copy=True) is not x
    with pytest.raises(ValueError, match="copy=False, but this needs a copy"):
        pb.asarray(a, dtype=pb.float32, copy=False)
    with pytest.raises(ValueError, match="copy=False, but this needs a copy"):
        pb.asarray([1.0], copy=False)
    assert pb.tensor(a)._address != address(a)


def test_array_method():
    x = pb.asarray([1.5, 2.5])
    assert x.__array__(np.int64).tolist() == [1, 2]
    assert address(x.__array__(copy=True)) != x._address
    assert address(x.__array__(np.float32, copy=False)) == x._address
    with pytest.raises(ValueError, match="another dtype needs a copy"):
        x.__array__(np.int64, copy=False)
    assert np.asarray(x, dtype="float64").dtype == np.float64
    assert np.add(x, 1).tolist() == [2.5, 3.5]


def test_numpy_on_the_left():
    a = np.arange(3.0)
    x = pb.asarray([1.0, 2.0, 3.0])
    for y, want in ((a + x, [1, 3, 5]), (x + a, [1, 3, 5]), (a * x, [0, 2, 6]), (a - x, [-1, -1, -1])):
        assert isinstance(y, pb.Tensor) and y.tolist() == want


def test_buffer_flags():
    x = pb.asarray(base("int32"))[:, ::2]
    m = memoryview(x)
    assert m.format == "i" and m.shape == x.shape and m.strides == (80, 40, 4) and not m.readonly
    assert m.tolist() == x.tolist()
    assert m.tobytes() == x.tobytes()
    with pytest.raises(BufferError, match="not contiguous"):
        zlib.crc32(x)
    assert zlib.crc32(x.contiguous()) == zlib.crc32(x.tobytes())


# ---- copies and pickles


class Named(pb.Tensor):
    pass


def test_pickle():
    for x in (pb.asarray(base())[::2, ::-1], pb.asarray(1.0), pb.zeros((0, 3)), pb.asarray([1.5]).astype(pb.bfloat16)):
        y = pickle.loads(pickle.dumps(x))
        assert y.shape == x.shape and y.dtype == x.dtype and y.tolist() == x.tolist() and type(y) is pb.Tensor
    w = pb.tensor([1.0, 2.0], requires_grad=True)
    assert pickle.loads(pickle.dumps(w)).requires_grad
    assert not pickle.loads(pickle.dumps(w * 2.0)).requires_grad
    n = Named([1.0, 2.0], requires_grad=True)
    n.label = "weight"
    for protocol in range(2, 6):
        m = pickle.loads(pickle.dumps(n, protocol))
        assert type(m) is Named and m.label == "weight" and m.tolist() == [1.0, 2.0] and m.requires_grad
    with pytest.raises(ValueError, match="do not fill shape"):
        pb._core._rebuild(pb.Tensor, b"abc", pb.float32, (2,), False)


def test_copy():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    y = copy.copy(x)
    assert y is not x and y._address == x._address and y.requires_grad and y.is_leaf
    z = copy.copy(x * 2.0)
    z.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    n = Named([1.0])
    n.label = ["a"]
    m = copy.copy(n)
    assert type(m) is Named and m.label is n.label


def test_deepcopy():
    n = Named([1.0, 2.0], requires_grad=True)
    n.label = ["a"]
    (n * 3.0).sum().backward()
    a, b = copy.deepcopy([n, n])
    assert a is b and type(a) is Named and a.requires_grad and a.is_leaf
    assert a._address != n._address and a.tolist() == n.tolist()
    assert a.label == ["a"] and a.label is not n.label
    assert a.grad.tolist() == [3.0, 3.0] and a.grad._address != n.grad._address
    n.me = n
    c = copy.deepcopy(n)
    assert c.me is c
    with pytest.raises(pb.GraphError, match="cannot be copied with its graph"):
        copy.deepcopy(n * 2.0)
    assert copy.deepcopy((n * 2.0).detach()).tolist() == [2.0, 4.0]
    n.me = None


# ---- printing


def numpy_text(a, suffix=""):
    body = np.array2string(a, separator=", ", prefix="tensor(", threshold=1000)
    return f"tensor({body}{suffix})"


VALUES = [
    np.array([1.0, 2.5, -3.25]),
    np.array([0.1, 0.2, 1 / 3]),
    np.array([1.0, 2.0, 3.0]),
    np.array([1e-5, 1.0, 1000.0]),
    np.array([1e8, 1.0]),
    np.array([1e20, -1.0, 0.0]),
    np.array([np.nan, 1.0, np.inf, -np.inf]),
    np.array([np.nan, 1.123456789, -np.inf]),
    np.array([np.nan]),
    np.array([0.0, -0.0]),
    np.array(3.14159),
    np.array([[1.0, 20.0], [300.5, 4.0]]),
    np.arange(24.0).reshape(2, 3, 4),
    np.arange(40.0),
    np.linspace(0, 1, 30),
    np.array([1 / 3, 1e-7, 2.5]),
    np.array([16777216.0, 33554434.0, 12345679.0]),
    np.random.default_rng(0).normal(size=(4, 7)),
    np.random.default_rng(0).normal(size=(3, 400)),
    np.random.default_rng(1).normal(size=(2, 20, 30)) * 1e-3,
    np.arange(1001.0),
    np.arange(1000.0),
    np.arange(5000.0).reshape(5, 1000),
]


@pytest.mark.parametrize("a", VALUES, ids=range(len(VALUES)))
def test_repr_of_floats(a):
    assert repr(pb.asarray(a)) == numpy_text(a, ", dtype=float64")
    f = a.astype(np.float32)
    assert repr(pb.asarray(f)) == numpy_text(f)


def test_repr_of_half_and_bfloat16():
    a = np.array([0.1, 2.0, 65504.0, 6e-8], dtype=np.float16)
    assert repr(pb.asarray(a)) == numpy_text(a, ", dtype=float16")
    assert repr(pb.asarray([0.1, 1.0]).astype(pb.bfloat16)) == "tensor([0.1, 1. ], dtype=bfloat16)"


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64", "bool"])
def test_repr_of_integers(dtype):
    for a in (
        np.array([1, 20, 100]),
        np.arange(-3, 3),
        np.arange(3000).reshape(3, 1000) % 100,
        np.array(7),
        np.arange(60),
    ):
        a = a.astype(dtype)
        suffix = "" if dtype in ("int64", "bool") else f", dtype={dtype}"
        assert repr(pb.asarray(a)) == numpy_text(a, suffix)
    big = np.array([2**64 - 1, 0], dtype=np.uint64)
    assert repr(pb.asarray(big)) == numpy_text(big, ", dtype=uint64")


def test_repr_says_what_is_special():
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2.0) == "tensor([2., 4.], grad_fn=<multiply>)"
    assert repr(pb.zeros((0,))) == "tensor([])"
    assert repr(pb.zeros((2, 0), dtype=pb.int64)) == "tensor([], shape=(2, 0), dtype=int64)"
    assert str(x) == repr(x)


def test_format():
    x = pb.asarray(3.14159)
    assert f"{x:.2f}" == "3.14" and f"{pb.asarray([7]):03d}" == "007" and f"{x}" == str(x)
    with pytest.raises(pb.DTypeError, match=r"only a tensor of one element takes the format '.2f'"):
        f"{pb.zeros((2,)):.2f}"


def test_namespace():
    assert pb.zeros(1).__array_namespace__() is pb
    assert pb.zeros(1).__array_namespace__(api_version="2024.12") is pb
    with pytest.raises(ValueError, match="version 1999 of the array API is not provided"):
        pb.zeros(1).__array_namespace__(api_version="1999")


def test_without_numpy():
    script = """
import sys
sys.modules["numpy"] = None
import copy, pickle
import pullback as pb
x = pb.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
y = x[[0, 1], [1, 0]] * 2.0
z = pb.zeros((2, 2)); z[0] = y; z[pb.asarray([False, True])] = 5.0
z.sum().backward()
assert x.grad.tolist() == [[0.0, 2.0], [2.0, 0.0]], x.grad
assert repr(z.detach()) == "tensor([[4., 6.],\\n        [5., 5.]])", repr(z.detach())
assert pickle.loads(pickle.dumps(x)).tolist() == copy.deepcopy(x).tolist() == x.tolist()
assert pb.from_dlpack(x.detach().__dlpack__()).tolist() == x.tolist()
assert memoryview(x.detach()).tolist() == x.tolist()
assert pb.asarray(memoryview(bytearray(2))).tolist() == [0, 0]
try:
    x.numpy()
except ImportError:
    print("fine")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


def test_numpy_is_not_imported_at_once():
    script = "import sys, pullback; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
