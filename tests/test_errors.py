"""Bad calls: the class of the error, its text, a line of help; and that every message of the engine has a test."""

import ctypes
import importlib
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import pullback as pb
from pullback import _core as C

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import errors

X = pb.ones((2, 3))
I3 = pb.tensor([0, 1, 2])
HUGE = 2**40


class OnGpu:
    """A DLPack producer whose data would lie on a GPU that is no CUDA device."""

    def __dlpack_device__(self):
        return (10, 0)

    def __dlpack__(self, **_):
        raise AssertionError("not asked")


def _address(capsule, name):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


def gpu_capsule():
    capsule = pb.ones(3).__dlpack__()
    at = ctypes.c_int32.from_address(_address(capsule, b"dltensor") + 8)
    at.value = 10
    try:
        pb.from_dlpack(capsule)
    finally:
        at.value = 1


def capsule_of_a_later_version():
    capsule = pb.ones(3).__dlpack__(max_version=(1, 0))
    at = ctypes.c_uint32.from_address(_address(capsule, b"dltensor_versioned"))
    at.value = 9
    try:
        pb.from_dlpack(capsule)
    finally:
        at.value = 1


def leaf(*shape):
    return pb.ones(shape or (3,)).requires_grad_()


def backward_twice():
    loss = (leaf() ** 3).sum()
    loss.backward()
    loss.backward()


def stale():
    y = leaf() * 2
    loss = (y * y).sum()
    y += 1
    loss.backward()


def write_to_readonly():
    a = np.ones(3)
    a.flags.writeable = False
    x = pb.asarray(a)
    x += 1


def set_requires_grad_of_a_result():
    y = leaf() * 2
    y.requires_grad = False


def set_grad(g):
    x = leaf()
    x.grad = g


def grow_in_place():
    x = pb.ones(2)
    x += X.mT


def linear():
    return pb.nn.Linear(2, 1)


def adam():
    model = linear()
    opt = pb.optim.Adam(model.parameters(), lr=0.1)
    model(pb.ones((4, 2))).sum().backward()
    opt.step()
    return opt


def load_into_adam(change):
    opt = adam()
    state = dict(opt.state_dict())
    change(state)
    opt.load_state_dict(state)


def trained(**keywords):
    model = linear()
    x, y = keywords.pop("data", (pb.ones((4, 2)), pb.ones((4, 1))))
    keywords.setdefault("loss", pb.losses.mse)
    data = pb.data.DataLoader(pb.data.TensorDataset(*[t for t in (x, y) if t is not None]), 2)
    opt = pb.optim.SGD(model.parameters(), lr=0.1)
    return pb.train.Trainer(model, opt, progress=False, **keywords).fit(data, epochs=1)


def shut_out(module, call):
    """The call while `module` cannot be imported."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == module}
    sys.modules[module] = None
    try:
        return call()
    finally:
        del sys.modules[module]
        sys.modules.update(kept)


def load_unknown_dtype():
    header = b'{"a":{"dtype":"F99","shape":[],"data_offsets":[0,4]}}'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        pb.load(path)


def step_past_the_cycle():
    opt = pb.optim.SGD([leaf()], momentum=0.9)
    schedule = pb.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=2)
    for _ in range(3):
        schedule.step()


def custom_that_returns(value):
    f = pb.custom(lambda x: x * 1.0)
    f.pull(lambda *_: value)
    f(leaf()).sum().backward()


def set_state(t=1, slots=(), scalars=()):
    C.OptimDriver().set_state(leaf(), t, list(slots), list(scalars))


def sequential_of_another_length():
    make = pb.optim.lr_scheduler
    opt = pb.optim.SGD([leaf()])
    two = make.ChainedScheduler([make.ConstantLR(opt), make.ConstantLR(opt)])
    two.load_state_dict({**two.state_dict(), "parts": []})


CALLS = [
    # shapes, axes and sizes
    (lambda: X + pb.ones((2, 4)), pb.ShapeError, r"do not broadcast: sizes 3 and 4 differ at axis -1"),
    (lambda: pb.reshape(X, (4, 2)), pb.ShapeError, "reshape"),
    (lambda: pb.sum(X, 2), pb.ShapeError, "axis 2 is out of range for a tensor of 2 dimensions"),
    (lambda: pb.softmax(X, -3), pb.ShapeError, "axis -3 is out of range"),
    (lambda: pb.sum(pb.ones(()), 0), pb.ShapeError, "out of range for a tensor of 0 dimensions"),
    (lambda: pb.flatten(X, 5), pb.ShapeError, "axis 5 is out of range"),
    (lambda: pb.zeros((-1,)), pb.ShapeError, r"negative size in shape \[-1\]"),
    (lambda: pb.zeros((HUGE, HUGE)), pb.ShapeError, "number of elements of shape .* overflows"),
    (lambda: pb.zeros((2**70,)), pb.ShapeError, "out of the range of int64"),
    (lambda: pb.broadcast_to(pb.ones(()), (HUGE, HUGE)), pb.ShapeError, "overflows"),
    (lambda: pb.tile(pb.ones(4), HUGE * HUGE), pb.ShapeError, "out of the range|overflows"),
    (lambda: pb.zeros((1,) * 33), pb.ShapeError, "at most 32 dimensions"),
    (lambda: pb.empty((2**56,)), MemoryError, "bytes were asked for and the system refused"),
    (
        lambda: pb.full_like(pb.ones(3), pb.ones((1, 2, 3))),
        pb.ShapeError,
        "the fill value does not broadcast to the shape",
    ),
    (lambda: pb.full((2,), pb.ones((3,))), pb.ShapeError, "do not broadcast"),
    (lambda: pb.squeeze(X, 0), pb.ShapeError, "axis 0 has size 2"),
    (lambda: pb.matmul(X, 2.0), pb.ShapeError, "a 0-d operand has no axis to sum over"),
    (lambda: pb.vecdot(X, 2.0), pb.ShapeError, "a 0-d operand has no axis to sum over"),
    (lambda: pb.matmul(X, X), pb.ShapeError, "inner sizes differ, 3 and 2"),
    (lambda: pb.einsum("ijk->i", X), pb.ShapeError, "term 0 of 'ijk->i' names 3 axes"),
    (lambda: pb.stack([X, X[:1]]), pb.ShapeError, "shapes differ; all arrays must have one shape"),
    (lambda: pb.concat([X, I3]), pb.ShapeError, "concat"),
    (lambda: pb.take(X, I3, axis=(0, 1)), pb.ShapeError, "takes one axis, got 2"),
    (lambda: pb.repeat(X, 2, axis=()), pb.ShapeError, "takes one axis, got 0"),
    (
        lambda: pb.conv2d(pb.ones((1, 1, 4, 4)), pb.ones((1, 1, 2, 2)), stride=(1, 1, 1)),
        ValueError,
        "stride has 3 values",
    ),
    (lambda: pb.conv1d(pb.ones((1, 1, 4)), pb.ones((1, 1, 2)), padding=(1, 1)), ValueError, "padding has 2 values"),
    (grow_in_place, pb.ShapeError, "an in-place result must have the shape of its target"),
    (lambda: set_grad(pb.ones(4)), pb.ShapeError, "a gradient has the shape of its tensor"),
    (lambda: X[5], IndexError, "index 5 is out of bounds for axis 0 with size 2"),
    (lambda: pb.take(X, pb.tensor([7]), axis=0), IndexError, "out of"),
    # dtypes and types
    (lambda: iter(pb.ones(())), pb.DTypeError, "a 0-d tensor cannot be iterated over"),
    (lambda: pb.cumulative_sum(X, 0, dtype="float32x"), pb.DTypeError, "dtype is not a data type"),
    (lambda: X.to(3), pb.DTypeError, "the target must be a dtype or a device name"),
    (lambda: pb.concat(3), pb.DTypeError, "takes a sequence of tensors, got int"),
    (lambda: pb.bitwise_and(X, X), pb.DTypeError, "needs integers or bools, got float32"),
    (lambda: ~X, pb.DTypeError, "needs integers or bools"),
    (lambda: pb.tensor([1], requires_grad=True), pb.DTypeError, "only floating tensors can require grad"),
    (lambda: pb.zeros((2,), dtype="int3"), pb.DTypeError, "dtype"),
    (lambda: pb.isdtype(pb.int8, "number"), ValueError, "unknown kind 'number'"),
    (lambda: X + 2**70, pb.DTypeError, "a Python int is out of the range of 64-bit integers"),
    (lambda: pb.leaky_relu(X, "steep"), pb.DTypeError, "argument 'negative_slope' must be a number"),
    (lambda: pb.gelu(X, saved="sometimes"), ValueError, "saved="),
    (lambda: pb.maximum(X), pb.DTypeError, "maximum: takes 2 tensors, got 1 arguments"),
    (lambda: [1, 2][X], pb.DTypeError, "only an integer tensor of one element is an index"),
    (lambda: X.item(), pb.ShapeError, "only a tensor of one element has a value"),
    (lambda: int(pb.tensor([1, 2])), pb.ShapeError, "only a tensor of one element has a value"),
    (
        lambda: pb.scatter_add(X, pb.tensor([[0], [1]]), pb.ones((2, 7)), axis=0),
        pb.ShapeError,
        "the values do not fit the indices|do not broadcast",
    ),
    (
        lambda: pb.scatter_add(X, pb.tensor([[0, 1, 1]]), pb.ones((2, 3)), axis=0),
        pb.ShapeError,
        "the values do not fit the indices",
    ),
    (
        lambda: pb.concat([pb.broadcast_to(pb.ones((1, 0)), (2**62, 0))] * 3),
        pb.ShapeError,
        "the joined size overflows",
    ),
    (lambda: pb.jvp(lambda a: a, (I3,), (I3,)), pb.DTypeError, "only floating tensors carry tangents"),
    (lambda: pb.memory.stats("cuda"), pb.DeviceError, "device 'cuda:0' is not available"),
    # devices and foreign memory
    (lambda: X.to("cuda"), pb.DeviceError, "device 'cuda' is not available"),
    (lambda: pb.zeros((2,), device="cuda"), pb.DeviceError, "device 'cuda' is not available"),
    (lambda: pb.from_dlpack([1.0]), pb.DTypeError, "of type list does not speak DLPack"),
    (lambda: pb.from_dlpack(OnGpu()), pb.DeviceError, "the data lies on DLPack device type 10, not on the CPU"),
    (gpu_capsule, pb.DeviceError, "the data lies on DLPack device type 10, not on the CPU"),
    (capsule_of_a_later_version, pb.DTypeError, "DLPack version 9 is not known here"),
    (write_to_readonly, ValueError, "read-only"),
    # the graph
    (backward_twice, pb.GraphError, "this graph was used by an earlier backward and its saved tensors are freed"),
    (stale, pb.GraphError, "modified in place"),
    (set_requires_grad_of_a_result, pb.GraphError, "a result of a recorded op always requires grad"),
    (lambda: custom_that_returns([3]), pb.DTypeError, "returns tensors or None"),
    (lambda: pb.gradients([3], [X]), pb.DTypeError, "takes tensors, got int"),
    (
        lambda: pb.conv2d(pb.ones((1, 1, 4, 4)), pb.ones((1, 1, 2, 2)), "bias"),
        pb.DTypeError,
        "cannot make a tensor of str",
    ),
    (lambda: pb.argmax(X, (0, 1)), pb.DTypeError, "an argument has a wrong type"),
    (lambda: pb.grad(lambda a: a)("text"), pb.DTypeError, "cannot differentiate by an argument of type str"),
    (lambda: pb.jvp(lambda d: d["a"], ({"a": X},), ([X, X],)), pb.ShapeError, "a tangent has another structure"),
    (lambda: pb.testing.gradcheck(pb.sin, X, modes="sideways"), ValueError, r"modes \('sideways',\), order 1"),
    (lambda: pb.testing.gradcheck(pb.sin, X), pb.DTypeError, "input 0 is float32"),
    # optimizers
    (lambda: C.optim_check(99, [], 0.0), ValueError, "no such rule"),
    (lambda: pb.optim.SGD([leaf()], lr=-1.0), ValueError, "lr must be finite and not negative, got -1"),
    (lambda: C.OptimDriver().set_state(leaf(), 1, [None] * 9), ValueError, "too many states"),
    (lambda: set_state(t=-1), ValueError, "a step count is negative"),
    (lambda: set_state(scalars=[0.0] * 99), ValueError, "too many numbers"),
    (lambda: set_state(slots=[pb.ones(4)]), pb.ShapeError, "a state has the shape of its parameter"),
    (lambda: set_state(slots=[pb.ones(3, dtype=pb.int32)]), pb.DTypeError, "a state must be floating"),
    (
        lambda: pb.optim.OptAMSGrad([leaf()], guess="extrapolate", state="int8"),
        ValueError,
        "extrapolated guesses need float32 states",
    ),
    (
        lambda: importlib.import_module("pullback.torch").flax,
        AttributeError,
        "module 'pullback.torch' has no attribute",
    ),
    (sequential_of_another_length, ValueError, "the state has another number of schedules"),
    (lambda: pb.optim.SGD([{"params": [leaf()], "speed": 1}]), TypeError, "SGD: a group has no keyword 'speed'"),
    (lambda: load_into_adam(lambda s: s.update(rule="SGD")), ValueError, "this is a state of SGD, not of Adam"),
    (
        lambda: load_into_adam(lambda s: s.pop(next(k for k in s if k.startswith("state.0") and "step" not in k))),
        ValueError,
        "state 0 has no ",
    ),
    (lambda: load_into_adam(lambda s: s.update(other=1)), ValueError, "unknown entry 'other'"),
    (
        lambda: pb.optim.lr_scheduler.StepLR(pb.optim.SGD([leaf()]), 0),
        ValueError,
        "StepLR: step_size must be at least 1",
    ),
    (step_past_the_cycle, ValueError, "of a cycle of 2 steps"),
    (
        lambda: pb.optim.SGD([leaf()]).step(lambda: pb.ones(())),
        pb.GraphError,
        "does not depend on a tensor that requires",
    ),
    # modules, data, files, training
    (lambda: pb.nn.ReLU(1, 2, 3), TypeError, "ReLU takes 0 arguments, got 3"),
    (lambda: pb.nn.Sequential({"a": linear()}).b, AttributeError, "Sequential has no attribute 'b'"),
    (lambda: pb.nn.init.calculate_gain("wave"), ValueError, "no gain known for 'wave'"),
    (lambda: pb.functional_call(linear(), {"w": X}, X), ValueError, "has no 'w'|has no w"),
    (lambda: linear().load_state_dict({"weight": X}), pb.CheckpointError, "the state does not fit"),
    (lambda: pb.data.Text("abc").encode("abd"), ValueError, "the vocabulary has no 'd'"),
    (lambda: pb.data.Text("abc").decode([3]), ValueError, r"codes lie in 0\.\.2"),
    (lambda: shut_out("sklearn", pb.data.digits), ImportError, "the images are part of scikit-learn, which cannot be"),
    (load_unknown_dtype, pb.CheckpointError, "tensor 'a' has the unknown dtype 'F99'"),
    (lambda: pb.train.History()["speed"], KeyError, "no epoch has 'speed'"),
    (
        lambda: shut_out("matplotlib", lambda: pb.train.History().plot("x.png")),
        ImportError,
        "matplotlib cannot be imported",
    ),
    (lambda: pb.train.CSVLogger("x.csv", on="day"), ValueError, "unknown on='day'"),
    (lambda: trained(data=(pb.ones((4, 2)), None)), TypeError, r"a batch must be \(x, y\), got tuple"),
    (
        lambda: trained(data=(pb.full((4, 2), np.nan), pb.ones((4, 1)))),
        FloatingPointError,
        r"the loss is nan at step 1",
    ),
    (lambda: trained(metrics=["recall"]), ValueError, "no metric 'recall'"),
]


@pytest.mark.parametrize("call,kind,pattern", CALLS, ids=[p[:40] for _, _, p in CALLS])
def test_bad_call(call, kind, pattern):
    with pytest.raises(kind, match=pattern) as info:
        call()
    assert "help: " in str(info.value)


def test_the_texts_are_found():
    """tools/errors.py --log compares them with the errors of a whole run of the tests."""
    assert len(errors.native()) > 200 and len(errors.python()) > 200


def test_every_message_has_help():
    caught = ("duplicate name ", " is no JSON", "format ")  # texts that another message quotes
    without = [m for m in errors.native() + errors.python() if not m.has_help and m.parts[0] not in caught]
    assert not without, "\n".join(f"{m.place}: {' ... '.join(m.parts)}" for m in without)
