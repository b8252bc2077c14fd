"""A numpy.float64 is a Python float: in an expression it keeps its value and leaves the type to the tensor."""

import numpy as np
import pytest

import pullback as pb


@pytest.mark.parametrize("dtype", [pb.float64, pb.float32])
def test_a_numpy_float_acts_as_a_float(dtype):
    x = pb.zeros((3,), dtype=dtype)
    for value in (0.1, np.float64(0.1)):
        for y in (x + value, value + x, pb.maximum(x, value), pb.where(x == 0, value, x)):
            assert y.dtype == dtype
            assert y.tolist() == [0.1 if dtype == pb.float64 else float(np.float32(0.1))] * 3
