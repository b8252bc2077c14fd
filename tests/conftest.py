import sys
from pathlib import Path

import pytest

import pullback as pb

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _seed():
    """Each test starts from the same generator, thread count and graph mode."""
    threads = pb.get_num_threads()
    pb._core.manual_seed(1234)
    yield
    pb.set_num_threads(threads)
    pb._core._set_grad_enabled(True)
