// The front of an op that a binding makes: where autocast has its say (Note [Autocast]).
#pragma once
#include <nanobind/nanobind.h>

#include <string>

#include "bind/caster.h"
#include "families/autocast.h"

namespace pb::py {

// Arguments of a call as the policy of its op wants them. What is no tensor passes.
class Front {
 public:
  explicit Front(const char* op) : op_(op) {}
  Tensor operator()(const Tensor& t) const { return autocast(op_, t); }
  Operand operator()(const Operand& o) const { return {autocast(op_, o.t)}; }
  nb::object operator()(nb::handle h) const {
    return is_tensor(h.ptr()) ? nb::steal(wrap(autocast(op_, unwrap(h.ptr())))) : nb::borrow(h);
  }
  nb::args operator()(const nb::args& args) const {
    nb::list cast;
    for (nb::handle h : args) cast.append((*this)(h));
    return nb::borrow<nb::args>(nb::tuple(cast));
  }
  template <class T>
  const T& operator()(const T& other) const {
    return other;
  }

 private:
  const char* op_;
};

// f behind the front of `op`, which lives as long as the process.
template <class F, class R, class... A>
auto behind_front(const char* op, F f, R (F::*)(A...) const) {
  return [op, f](A... a) -> R {
    if (!autocasting()) return f(a...);
    Front front(op);
    return f(front(a)...);
  };
}
template <class F>
auto behind_front(const char* op, F f) {
  return behind_front(op, f, &F::operator());
}
template <class R, class... A>
auto behind_front(const char* op, R (*f)(A...)) {
  return [op, f](A... a) -> R {
    if (!autocasting()) return f(a...);
    Front front(op);
    return f(front(a)...);
  };
}

// A binding and its registry row in one call, for ops outside the Map and Reduce families.
template <class F, class... A>
void def_op(nb::module_& m, const OpInfo& info, F f, const A&... args) {
  add_info(info);
  m.def(info.name.data(), behind_front(info.name.data(), std::move(f)), args..., info.doc.data());
}

}  // namespace pb::py
