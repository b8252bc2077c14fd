"""What `import pullback` loads, offers and refuses; each case in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pullback as pb

ROOT = Path(__file__).resolve().parent.parent


def python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = str(Path(pb.__file__).resolve().parent.parent)  # the package under test, wherever it lies
    variables = {**os.environ, "PYTHONPATH": path, **env}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=variables)


def output(program: str, **env: str) -> str:
    done = python(program, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_numpy_is_not_imported() -> None:
    program = "import sys, pullback; print(sorted(m for m in sys.modules if m.split('.')[0] in ('numpy', 'torch')))"
    assert output(program) == "[]\n"


def test_loaded_modules() -> None:
    program = "import sys, pullback; print(*sorted(m for m in sys.modules if m.startswith('pullback')))"
    expected = "pullback pullback._array_api pullback._core pullback._functions pullback._fused pullback._tree"
    expected += " pullback.transforms"
    assert output(program).split() == expected.split()


def test_works_without_numpy() -> None:
    program = """
import sys
sys.modules["numpy"] = None
import pullback as pb
pb.manual_seed(0)
x = pb.random.normal((8, 3))
layer = pb.nn.Linear(3, 1)
loss = pb.losses.mse(layer(x), pb.zeros((8, 1)))
loss.backward()
before = layer.weight.tolist()
pb.optim.SGD(layer.parameters(), lr=0.1).step()
assert layer.weight.tolist() != before
print(loss.item() == loss.item())
"""
    assert output(program) == "True\n"


def levels() -> list[str]:
    """What this build has and this CPU runs, from the refusal of the others."""
    return [v for v in ("v2", "v3", "v4") if python("import pullback", PULLBACK_ISA=v).returncode == 0]


def test_isa_level_is_chosen_by_the_environment() -> None:
    found = levels()
    assert found
    for level in found:
        program = "import pullback as pb; print(pb.isa_level(), pb.exp(pb.tensor([0.0, 1.0])).sum().item())"
        name, value = output(program, PULLBACK_ISA=level).split()
        assert name == level and abs(float(value) - 3.718281828) <= 1e-6
    assert output("import pullback; print(pullback.isa_level())", PULLBACK_ISA="").strip() == found[-1]


@pytest.mark.parametrize("level", ["v9", "v1", "avx2", "v"])
def test_unknown_isa_level(level: str) -> None:
    done = python("import pullback", PULLBACK_ISA=level)
    assert done.returncode == 1
    assert re.search(rf"ValueError: PULLBACK_ISA: unknown level '{level}'\nhelp: use v2, v3 or v4", done.stderr)


def test_isa_level_beyond_cpu_or_build() -> None:
    for level in {"v2", "v3", "v4"} - set(levels()):
        done = python("import pullback", PULLBACK_ISA=level)
        refusal = "ValueError: PULLBACK_ISA: this (CPU does not run|build has no kernels for) level"
        assert re.search(refusal, done.stderr)


#: API.md, the names whose ops and layers exist.
PUBLIC = """
Tensor tensor asarray zeros ones full empty arange linspace eye tril triu zeros_like ones_like empty_like full_like
meshgrid from_dlpack dtype bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64
ShapeError DTypeError DeviceError GraphError CheckpointError
add subtract multiply divide negative positive pow floor_divide remainder abs square sqrt rsqrt reciprocal exp expm1 log
log1p log2 log10 sin cos tan sinh cosh asin acos atan tanh erf erfc sign floor ceil round trunc maximum minimum where
clip isnan isinf isfinite less less_equal greater greater_equal equal not_equal logical_and logical_or logical_xor
logical_not bitwise_and bitwise_or bitwise_xor
relu leaky_relu elu celu selu gelu silu mish softplus softsign tanhshrink sigmoid log_sigmoid hardswish hardsigmoid
hardtanh relu6
sum mean prod var std max min argmax argmin any all logsumexp norm cumulative_sum sort argsort topk
softmax log_softmax layer_norm rms_norm group_norm batch_norm dropout scaled_dot_product_attention
matmul tensordot einsum vecdot outer conv1d conv2d conv_transpose2d max_pool2d avg_pool2d adaptive_avg_pool2d
embedding take take_along_axis scatter_add concat stack split unstack pad tile repeat roll
bias_act_dropout linear_act silu_mul gelu_mul linear_cross_entropy add_rms_norm
reshape permute_dims matrix_transpose expand_dims squeeze broadcast_to broadcast_arrays flip moveaxis flatten
e pi inf nan newaxis finfo iinfo can_cast isdtype result_type astype
grad value_and_grad vjp jvp hvp linearize jacobian hessian gradients checkpoint stop_gradient custom no_grad enable_grad
detect_anomaly functional_call
nn losses optim random data train io memory cuda testing profile fewbit saving fused
autocast capture save load manual_seed set_num_threads get_num_threads get_include isa_level ops op
""".split()
#: Beyond API.md: what the layers stand on.
MORE = {"linear", "transforms"}


def test_public_names() -> None:
    missing = [n for n in PUBLIC if not hasattr(pb, n)]
    assert not missing
    assert [n for n in PUBLIC if n not in dir(pb)] == []


def test_no_other_names() -> None:
    shown = output("import pullback as pb; print(*(n for n in dir(pb) if not n.startswith('_')))").split()
    assert sorted(set(shown) - set(PUBLIC) - MORE) == []
    assert not [n for n in dir(pb) if n.startswith("_") and not n.endswith("__")]


def test_reserved_names_are_absent() -> None:
    for name in ("vmap", "fuse", "complex64", "functional"):
        assert not hasattr(pb, name)
    with pytest.raises(AttributeError, match=r"module 'pullback' has no attribute 'vmap'\nhelp: pb.ops\(\)"):
        pb.__getattr__("vmap")


def test_cuda_without_a_device() -> None:
    program = "import pullback as pb; print(pb.cuda.is_available(), pb.cuda.device_count() >= 0)"
    assert output(program) == "False True\n"
    if pb.cuda.device_count() == 0:
        with pytest.raises(pb.DeviceError, match="device 'cuda' is not available"):
            pb.zeros(2).to("cuda")
