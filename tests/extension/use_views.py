"""Passes tensors to dlpack_views and back: the same memory on both sides, freed when the last user goes."""

import gc

import dlpack_views as views
import numpy as np

import pullback as pb

x = pb.tensor(np.arange(35, dtype=np.float32).reshape(5, 7))
address = x.numpy().ctypes.data
assert views.address(x) == address
assert views.address(x[1:, 2:]) == address + 4 * (7 + 2)  # a view starts at its own first element

even = views.even_rows(x)
assert isinstance(even, pb.Tensor) and even.shape == (3, 7) and even.dtype == pb.float32
assert even.numpy().ctypes.data == address
np.testing.assert_array_equal(even.numpy(), x.numpy()[::2])
even[1, 0] = -1.0  # written through the returned tensor, seen in the first
assert x[2, 0].item() == -1.0
turned = views.even_rows(x.T)
np.testing.assert_array_equal(turned.numpy(), x.numpy().T[::2])
assert views.alive() == 2

del x  # the returned tensors keep the memory
assert even.numpy()[2, 6] == 34.0
del even, turned
gc.collect()
assert views.alive() == 0

own, where = views.counted(1000)
assert own.numpy().ctypes.data == where and own.sum().item() == 499500.0
tail = own[990:]
del own
gc.collect()
assert views.alive() == 1 and tail.tolist() == [float(i) for i in range(990, 1000)]
del tail
gc.collect()
assert views.alive() == 0

for wrong, text in ((pb.zeros((2, 2), dtype=pb.int64), "float32 expected"), (pb.zeros((2,)), "a matrix is expected")):
    try:
        views.even_rows(wrong)
    except ValueError as e:
        assert text in str(e)
    else:
        raise AssertionError(text)
assert views.alive() == 0
print("ok")
