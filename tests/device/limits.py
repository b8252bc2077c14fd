"""What device tensors refuse, each with the error that says so."""

from __future__ import annotations

import common
import numpy as np
import pytest

import pullback as pb

ON = {"device": common.DEVICE}


def test_operands_of_a_product_lie_together():
    with pytest.raises(pb.DeviceError, match="operands are on cuda:0 and cpu"):
        pb.matmul(pb.ones((2, 3), **ON), pb.ones((3, 2)))
    with pytest.raises(pb.DeviceError, match="operands are on cuda:0 and cpu"):
        pb.conv2d(pb.ones((1, 1, 4, 4), **ON), pb.ones((1, 1, 2, 2)))


def test_indices_lie_with_the_tensor():
    with pytest.raises(pb.DeviceError, match="the indices lie on cuda:0, the tensor on cpu"):
        pb.take(pb.ones(4), pb.asarray(np.array([1, 2])).to(common.DEVICE))


def test_dimensions_of_a_launch():
    wide = pb.ones((2,) * 10, **ON)[(slice(None, None, 2),) * 10]
    tall = pb.permute_dims(pb.ones((2,) * 10, **ON), tuple(reversed(range(10))))
    assert wide.size == 1
    with pytest.raises(pb.DeviceError, match="at most 8 dimensions that do not merge"):
        pb.asarray(tall, copy=True).tolist()
    with pytest.raises(pb.DeviceError, match="a mask on a CUDA device has at most 8 dimensions"):
        pb.ones((1,) * 9, **ON)[pb.ones((1,) * 9, **ON) > 0]
    with pytest.raises(pb.DeviceError, match="at most 8 index arrays on a CUDA device"):
        pb.ones((1,) * 9, **ON)[(pb.zeros(2, dtype=pb.int64, **ON),) * 9]


def test_a_captured_step_inside_another_is_part_of_it():
    inner = pb.capture(lambda x: x + 1.0)

    def outer(x):
        return inner(x) * 2.0

    x = pb.ones(2, **ON)
    inner(x)
    f = pb.capture(outer)
    for _ in range(3):
        assert f(x).tolist() == [4, 4]


def test_a_captured_trainer_stops_at_a_loss_that_is_not_finite():
    model = pb.nn.Linear(2, 1).to(common.DEVICE)
    x, y = pb.ones((8, 2)), pb.ones((8, 1))
    trainer = pb.train.Trainer(
        model, pb.optim.SGD(model.parameters(), lr=1e30), pb.losses.mse, capture=True, progress=False
    )
    data = pb.data.DataLoader(pb.data.TensorDataset(x, y), 4)
    with pytest.raises(FloatingPointError, match="with capture=True the step was made"):
        trainer.fit(data, steps=8)
