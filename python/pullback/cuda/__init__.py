"""CUDA devices. The kernels lie in a library of their own that is loaded only where a driver is found."""

from __future__ import annotations

from .. import _core as C

__all__ = ["device_count", "is_available"]


def device_count() -> int:
    """The number of CUDA devices; 0 without a driver, or in a build without the CUDA library.

    >>> pb.cuda.device_count() >= 0
    True
    """
    return C._cuda_device_count()


def is_available() -> bool:
    """Whether tensors can be put on a CUDA device. In this version they cannot: the library has kernels only.

    >>> pb.cuda.is_available()
    False
    """
    return False
