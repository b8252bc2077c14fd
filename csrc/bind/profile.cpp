// The events of a profile as Python reads them. python/pullback/profiler.py makes tables of them.
#include "tensor/profile.h"

#include "bind/caster.h"

namespace pb::py {

void bind_profile(nb::module_& m) {
  m.def("_set_profiling", &set_profiling, nb::arg("on"), "Starts a new list of events, or stops.");
  m.def("_thread_number", &thread_number, "The number of this thread in a profile.");
  m.def(
      "_take_profile",
      [] {
        nb::list out;
        for (const ProfileEvent& e : take_profile())
          out.append(nb::make_tuple(e.name, e.start, e.end, e.bytes, e.sequence, e.thread, e.backward));
        return out;
      },
      "(name, start ns, end ns, bytes, sequence number, thread, backward) of each op; the list is empty afterwards.");
}

}  // namespace pb::py
