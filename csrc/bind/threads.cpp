// Threads as Python sees them: their number, and the interpreter lock that long kernels give up.
#include "cpu/threads.h"

#include "bind/caster.h"

namespace pb::py {

namespace {

void* release_lock() {
  if (!PyGILState_Check()) return nullptr;
  return PyEval_SaveThread();
}
void acquire_lock(void* held) { PyEval_RestoreThread(static_cast<PyThreadState*>(held)); }
void poll_signals() {
  if (PyErr_CheckSignals()) nb::raise_python_error();
}

}  // namespace

void bind_threads(nb::module_& m) {
  set_lock_hooks({&release_lock, &acquire_lock, &poll_signals});
  m.def("set_num_threads", &set_num_threads, nb::arg("n"), "The number of threads that kernels use.");
  m.def("get_num_threads", &get_num_threads, "The number of threads that kernels use.");
}

}  // namespace pb::py
