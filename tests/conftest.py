import json
import os
import signal
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


def pytest_configure():
    """With PULLBACK_ERROR_LOG=FILE: the text of every error that a test expects is added to FILE, a JSON string a line.

    tools/errors.py --log FILE then tells which messages of the sources never came.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job of a shell; some tests press Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.environ.get("PULLBACK_ERROR_LOG")
    if not log:
        return
    kind = type(pytest.raises(ValueError))
    leave = kind.__exit__

    def record(self, exc_type, value, traceback):
        if value is not None:
            with Path(log).open("a") as file:
                file.write(json.dumps(str(value)) + "\n")
        return leave(self, exc_type, value, traceback)

    kind.__exit__ = record
