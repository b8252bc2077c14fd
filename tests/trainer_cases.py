"""Small models and data that the trainer's tests share."""

import csv
import struct

import numpy as np

import pullback as pb
from pullback import nn
from pullback.data import TensorDataset
from pullback.train import (
    Trainer,
)

cross_entropy = pb.losses.cross_entropy


def net(seed=1, dropout=0.0):
    pb.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def problem(n=20, seed=2):
    rng = pb.random.Generator(seed)
    x = pb.random.normal((n, 4), rng=rng)
    return TensorDataset(x, pb.argmax(x[:, :3], axis=1))


def sgd(model, lr=0.1, **more):
    return pb.optim.SGD(model.parameters(), lr=lr, **more)


def trainer(model, *, optimizer=None, loss=cross_entropy, **more):
    return Trainer(model, optimizer or sgd(model), loss, **({"progress": False} | more))


def weights(model):
    return {name: np.asarray(t.tolist()) for name, t in model.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def read_events(path):
    """(step, {tag: value}) of each record of an event file."""
    raw, out = path.read_bytes(), []
    while raw:
        n = struct.unpack("<Q", raw[:8])[0]
        data, raw = raw[12 : 12 + n], raw[16 + n :]
        at, step, values = 9, 0, {}
        assert data[0] == 9  # wall time, a double
        if data[at] == 0x10:
            at, step, shift = at + 1, 0, 0
            while True:
                step |= (data[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if data[at - 1] < 128:
                    break
            at += 2 if data[at + 1] < 128 else 3
            while at < len(data):
                tag = data[at + 4 : at + 4 + data[at + 3]]
                values[tag.decode()] = struct.unpack("<f", data[at + 5 + len(tag) : at + 9 + len(tag)])[0]
                at += 2 + data[at + 1]
        out.append((step, values))
    return out
