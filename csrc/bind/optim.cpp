// The optimizer driver for Python: pullback.optim holds names, schedules and containers, this the step.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <string>
#include <unordered_map>

#include "bind/caster.h"
#include "cuda/capture.h"
#include "families/map.h"
#include "families/view.h"
#include "ops/arithmetic.h"
#include "ops/transcendental.h"
#include "optim/driver.h"
#include "tape/node.h"
#include "tensor/profile.h"

namespace pb::py {

namespace {

using optim::Driver;
using optim::HyperInfo;
using optim::PureStep;
using optim::Range;
using optim::RuleRow;
using optim::StepOptions;

const RuleRow& row_at(int rule) {
  if (rule < 0 || rule >= optim::rule_count()) fail<ValueError>("optimizer", "no such rule", "see pullback.optim");
  return optim::rule_row(rule);
}

void check_hyper(const HyperInfo& info, double v) {
  bool ok = info.range == Range::Any           ? std::isfinite(v)
            : info.range == Range::NonNegative ? v >= 0 && std::isfinite(v)
                                               : v >= 0 && v < 1;
  if (ok) return;
  const char* rule = info.range == Range::Any           ? " must be a finite number"
                     : info.range == Range::NonNegative ? " must be finite and not negative"
                                                        : " must be in [0, 1)";
  fail<ValueError>("optimizer", std::string(info.name) + rule + ", got " + std::to_string(v),
                   "its default is " + std::to_string(info.value));
}

optim::Format format_at(int i) {
  if (i < 0 || i >= optim::kFormats) fail<ValueError>("step", "no such state format", "see pullback.optim");
  return optim::Format(i);
}
optim::Rounding rounding_at(int i) {
  if (i < 0 || i >= optim::kRoundings) fail<ValueError>("step", "no such rounding", "see pullback.optim");
  return optim::Rounding(i);
}

double number(nb::handle h) {
  if (PyFloat_CheckExact(h.ptr())) return PyFloat_AS_DOUBLE(h.ptr());
  double v = PyFloat_AsDouble(h.ptr());
  if (v == -1 && PyErr_Occurred()) nb::raise_python_error();
  return v;
}

// One group: (rule, params, hyper, weight_decay, decoupled) or that and (prox, a, b, state, rounding).
void add_group(Driver& d, nb::handle h) {
  auto t = nb::cast<nb::tuple>(h);
  const RuleRow& row = row_at(nb::cast<int>(t[0]));
  auto values = nb::cast<nb::sequence>(t[2]);
  double hyper[optim::kMaxHyper];
  for (int i = 0; i < row.nhyper; i++) check_hyper(row.hyper[i], hyper[i] = number(values[size_t(i)]));
  optim::GroupOptions o;
  o.weight_decay = number(t[3]);
  check_hyper({"weight_decay", 0, Range::NonNegative}, o.weight_decay);
  o.decoupled = nb::cast<bool>(t[4]);
  if (nb::len(t) > 5) {
    o.prox = optim::Prox(nb::cast<int>(t[5]));
    o.a = number(t[6]);
    o.b = number(t[7]);
    o.state = format_at(nb::cast<int>(t[8]));
    o.rounding = rounding_at(nb::cast<int>(t[9]));
  }
  d.group(row, hyper, o);
}

// groups: [(rule, params, hyper, weight_decay, decoupled) or that and (prox, a, b, state, rounding)]; grads: None or
// one tensor or None per parameter, in order; origins: the same, what parameters are read from.
void add_groups(Driver& d, nb::list groups, nb::handle grads, nb::handle origins) {
  Py_ssize_t at = 0;
  for (nb::handle h : groups) {
    add_group(d, h);
    auto t = nb::cast<nb::tuple>(h);
    nb::list params = nb::cast<nb::list>(t[1]);
    for (nb::handle p : params) {
      if (!is_tensor(p.ptr())) fail<DTypeError>("step", "a parameter is not a tensor", "groups hold pb.Tensor objects");
      const Tensor& x = unwrap(p.ptr());
      auto item = [&](nb::handle list) {
        PyObject* g = PyList_GetItem(list.ptr(), at);
        if (!g) nb::raise_python_error();
        return g == Py_None ? Tensor() : to_tensor(g);
      };
      Tensor g = !grads.is_none() ? item(grads) : x->meta ? x->meta->grad : Tensor();
      d.add(x, g, origins.is_none() ? Tensor() : item(origins));
      at++;
    }
  }
}

double positive(nb::handle h, const char* name) {
  double v = number(h);
  if (!(v > 0))
    fail<ValueError>("step", std::string(name) + " must be positive, got " + std::to_string(v), "None is off");
  return v;
}

// None for each parameter: a list as `grads`.
nb::list no_gradients(nb::list groups) {
  nb::list none;
  for (nb::handle h : groups)
    for (nb::handle p : nb::cast<nb::list>(nb::cast<nb::tuple>(h)[1])) {
      (void)p;
      none.append(nb::none());
    }
  return none;
}

nb::tuple step(Driver& d, nb::list groups, nb::handle grads, nb::handle clip_norm, nb::handle clip_value,
               nb::handle scale, nb::handle origins) {
  StepOptions o;
  if (!clip_norm.is_none()) o.clip_norm = positive(clip_norm, "clip_norm");
  if (!clip_value.is_none()) o.clip_value = positive(clip_value, "clip_value");
  if (!scale.is_none()) o.scale = positive(scale, "scale");
  if (!std::isfinite(o.scale)) fail<ValueError>("step", "scale must be finite", "None is off");
  o.measure = !clip_norm.is_none() || !scale.is_none();
  d.begin();
  optim::StepResult r;
  try {
    add_groups(d, groups, grads, origins);
    d.prepare(o);
    Profiled scope("optimizer step");
    if (d.device().kind == Device::CUDA) {
      d.execute();
    } else {
      nb::gil_scoped_release unlocked;
      d.execute();
    }
    r = d.commit();
  } catch (...) {
    d.release_gradients();
    throw;
  }
  return nb::make_tuple(o.measure ? nb::object(nb::float_(r.norm)) : nb::none(), r.skipped);
}

// Steps each parameter as backward completes its gradient, which is then dropped.
class Stepper final : public GradTaker {
 public:
  Stepper(Driver& d, nb::list groups) : driver_(d) {
    for (nb::handle h : groups)
      for (nb::handle p : nb::cast<nb::list>(nb::cast<nb::tuple>(h)[1])) {
        const Tensor& t = checked_tensor(p, "step");
        places_.emplace(t.impl(), params_.size());
        params_.push_back(t);
      }
  }
  bool wants(const Tensor& leaf) const override { return places_.count(leaf.impl()) > 0; }
  void take(const Tensor& leaf) override {
    taken_++;
    Tensor g = std::exchange(leaf->need_meta().grad, Tensor());
    driver_.update(places_.at(leaf.impl()), g);
  }
  // The rest: gradients of an earlier backward, of leaves that are roots, and of nodes that no cotangent reached.
  void finish() {
    for (const Tensor& p : params_)
      if (p->meta && p->meta->grad) take(p);
    if (!taken_) fail<GraphError>("step", "no parameter has a gradient", "compute the loss from the parameters");
  }

 private:
  Driver& driver_;
  std::vector<Tensor> params_;
  std::unordered_map<TensorImpl*, size_t> places_;
  int64_t taken_ = 0;
};

void backward_step(Driver& d, const Tensor& loss, nb::list groups, nb::handle clip_value) {
  StepOptions o;
  if (!clip_value.is_none()) o.clip_value = positive(clip_value, "clip_value");
  if (loss.size() != 1 || !loss.requires_grad())
    fail<GraphError>("backward step", "the loss must be one number that depends on a parameter",
                     "reduce it, and compute it outside pb.no_grad()", loss);
  GradMode off(false);
  Stepper stepper(d, groups);
  d.begin();
  add_groups(d, groups, no_gradients(groups), nb::none());
  d.prepare_parts(o);
  Tensor g = full(loss.shape(), 1, loss.dtype(), loss.device());
  backward({&loss, 1}, {&g, 1}, {}, {.taker = &stepper});
  stepper.finish();
}

// (t, [slots], [scalars]) of a parameter, or None. Narrow states are widened copies, the others the tensors themselves.
nb::object get_state(const Driver& d, const Tensor& p) {
  const optim::State* s = d.find(p);
  if (!s) return nb::none();
  nb::list slots, scalars;
  for (const optim::Slot& slot : s->slots)
    slots.append(nb::cast(slot ? optim::widen(slot, optim::compute_dtype(p.dtype())) : Tensor()));
  for (double v : s->scalars) scalars.append(v);
  return nb::make_tuple(s->t, slots, scalars);
}

// (t, [slots], [scalars], rest) as they lie in memory; a slot of 8 bits is (codes, scales).
nb::object stored_state(const Driver& d, const Tensor& p) {
  const optim::State* s = d.find(p);
  if (!s) return nb::none();
  nb::list slots, scalars;
  for (const optim::Slot& slot : s->slots)
    slots.append(slot.scale ? nb::object(nb::make_tuple(slot.data, slot.scale)) : nb::cast(slot.data));
  for (double v : s->scalars) scalars.append(v);
  return nb::make_tuple(s->t, slots, scalars, nb::cast(s->rest));
}

Tensor own_copy(const Tensor& x, DType dtype, Device device) {
  Tensor own = empty(x.shape(), dtype, device);
  copy_into(own, x);
  return own;
}

optim::Slot slot_of(const Tensor& p, nb::handle h) {
  const bool pair = nb::isinstance<nb::tuple>(h);
  Tensor x = to_tensor(pair ? nb::object(h[nb::int_(0)]).ptr() : h.ptr());
  if (!(x.shape() == p.shape()))
    fail<ShapeError>("load_state_dict", "a state has the shape of its parameter", "load the state of this model", p, x);
  if (!pair) {
    if (!is_float(x.dtype()))
      fail<DTypeError>("load_state_dict", "a state must be floating", "the state is damaged", x);
    const bool narrow = x.dtype() == DType::BF16 && p.dtype() != DType::F64;
    return {own_copy(x, narrow ? DType::BF16 : optim::compute_dtype(p.dtype()), p.device()), Tensor()};
  }
  Tensor scale = to_tensor(nb::object(h[nb::int_(1)]).ptr());
  if (x.dtype() != DType::U8 || scale.dtype() != DType::F32 || !(scale.shape() == Shape{optim::blocks_of(p.size())}))
    fail<ShapeError>("load_state_dict", "8-bit states are uint8 codes with one float32 scale per 256 elements",
                     "the state is damaged", x, scale);
  return {own_copy(x, DType::U8, p.device()), own_copy(scale, DType::F32, p.device())};
}

void set_state(Driver& d, const Tensor& p, int64_t t, nb::list slots, nb::handle scalars, nb::handle rest) {
  if (t < 0) fail<ValueError>("load_state_dict", "a step count is negative", "the state is damaged");
  optim::State fresh;
  fresh.param = p;
  fresh.t = t;
  int j = 0;
  for (nb::handle h : scalars) {
    if (j == optim::kMaxScalars) fail<ValueError>("load_state_dict", "too many numbers", "the state is damaged");
    fresh.scalars[j++] = number(h);
  }
  j = 0;
  for (nb::handle h : slots) {
    if (j == optim::kMaxSlots) fail<ValueError>("load_state_dict", "too many states", "the state is damaged");
    if (!h.is_none()) fresh.slots[j] = slot_of(p, h);
    j++;
  }
  if (!rest.is_none() && optim::is_half(p.dtype())) {
    Tensor x = to_tensor(rest.ptr());
    if (!(x.shape() == p.shape()) || (x.dtype() != p.dtype() && x.dtype() != DType::F32))
      fail<ShapeError>("load_state_dict", "the rest of the rounding has the shape of its parameter",
                       "load the state of this model", p, x);
    fresh.rest = own_copy(x, x.dtype(), p.device());
  }
  d.forget(p);
  d.state(p) = std::move(fresh);
}

// One tensor of the pure form. Hyper-parameters that meet tensors are prepared in float64, 0-d and strong, so that
// nothing is rounded on the way.
struct Pure {
  PureStep s;
  const RuleRow& row;
  optim::Decay mode;

  Pure(int rule, const Tensor& p, const Tensor& g, nb::list slots, nb::list scalars, nb::list hyper,
       nb::handle weight_decay, bool decoupled, int64_t t)
      : row(row_at(rule)) {
    if (!is_float(p.dtype())) fail<DTypeError>("update", "only floating tensors can be trained", "cast it first", p);
    if (!(p.shape() == g.shape()))
      fail<ShapeError>("update", "a gradient has the shape of its parameter", "check the order", p, g);
    DType compute = p.dtype() == DType::F64 ? DType::F64 : DType::F32;
    s.p = cast(p, compute);
    s.g = cast(g, compute);
    s.t = t;
    s.row = &row;
    for (int j = 0; j < row.nslots; j++) s.slots[j] = cast(nb::cast<Tensor>(slots[size_t(j)]), compute);
    for (int j = 0; j < row.nscalars; j++) s.scalars[j] = cast(nb::cast<Tensor>(scalars[size_t(j)]), DType::F64);
    s.tensor_hyper = row.nscalars || row.nsums;
    for (int i = 0; i < row.nhyper; i++) {
      s.hyper[i] = scalar(hyper[size_t(i)], row.hyper[i]);
      s.plain[i] = item_double(s.hyper[i]);
      s.tensor_hyper = s.tensor_hyper || !s.hyper[i].weak();
    }
    if (s.tensor_hyper)
      for (int i = 0; i < row.nhyper; i++)
        if (s.hyper[i].weak()) s.hyper[i] = full({}, s.plain[i], DType::F64);
    Tensor wd = scalar(weight_decay, {"weight_decay", 0, Range::NonNegative});
    mode = wd.weak() && item_double(wd) == 0 ? optim::Decay::None
           : decoupled                       ? optim::Decay::Decoupled
                                             : optim::Decay::Coupled;
    s.coupled = mode == optim::Decay::Coupled;
    s.decay = mode == optim::Decay::Decoupled ? s.hyper[0] * wd : wd;
    if (!s.decay.weak()) s.decay = cast(s.decay, compute);
  }

  static Tensor scalar(nb::handle h, const HyperInfo& info) {
    Tensor x = is_tensor(h.ptr()) ? unwrap(h.ptr()) : Tensor(number(h));
    if (x.size() != 1)
      fail<ShapeError>("update", std::string(info.name) + " must be a number or a 0-d tensor", "pass one value", x);
    check_hyper(info, item_double(x));
    return x.weak() ? x : cast(x, DType::F64);
  }
};

// The sums that one tensor contributes to a step: 0-d float64 tensors.
nb::list pure_sums(int rule, const Tensor& p, const Tensor& g, nb::list slots, nb::list scalars, nb::list hyper,
                   nb::handle weight_decay, bool decoupled, int64_t t) {
  Pure pure(rule, p, g, slots, scalars, hyper, weight_decay, decoupled, t);
  nb::list out;
  if (!pure.row.nsums) return out;
  pure.row.pure_sums(pure.s);
  for (int q = 0; q < pure.row.nsums; q++) out.append(nb::cast(pure.s.sums[q]));
  return out;
}

// (p, [slots], [scalars]) after a step.
nb::tuple pure_step(int rule, const Tensor& p, const Tensor& g, nb::list slots, nb::list scalars, nb::list hyper,
                    nb::handle weight_decay, bool decoupled, int64_t t, nb::list sums) {
  Pure pure(rule, p, g, slots, scalars, hyper, weight_decay, decoupled, t);
  PureStep& s = pure.s;
  for (int q = 0; q < pure.row.nsums; q++) s.sums[q] = nb::cast<Tensor>(sums[size_t(q)]);
  if (pure.row.noise) s.noise = optim::normal_like(s.p, uint64_t(item_double(s.scalars[0])), uint64_t(t));
  pure.row.pure[int(pure.mode)](s);
  nb::list new_slots, new_scalars;
  for (int j = 0; j < pure.row.nslots; j++) new_slots.append(nb::cast(s.slots[j]));
  for (int j = 0; j < pure.row.nscalars; j++) new_scalars.append(nb::cast(s.scalars[j]));
  return nb::make_tuple(nb::cast(cast(s.p, p.dtype())), new_slots, new_scalars);
}

std::vector<Tensor> tensors_of(nb::list list) {
  std::vector<Tensor> v;
  for (nb::handle h : list) v.push_back(nb::cast<Tensor>(h));
  return v;
}

// Raw writes outside the graph.
void copy_all(nb::list targets, nb::list sources) {
  auto to = tensors_of(targets), from = tensors_of(sources);
  for (size_t i = 0; i < to.size(); i++) {
    if (!(to[i].shape() == from.at(i).shape()))
      fail<ShapeError>("copy", "a tensor has another shape than its target", "load the state of this model", to[i],
                       from[i]);
    check_writable(to[i], "copy");
  }
  for (size_t i = 0; i < to.size(); i++) {
    copy_into(to[i], from[i]);
    to[i]->storage->version++;
  }
}
void scale_all(nb::list tensors, double factor) {
  GradMode off(false);
  for (const Tensor& t : tensors_of(tensors)) {
    const Tensor in[] = {t, Tensor(factor)};
    map_call_into(map_row<Multiply>(), t, in);
  }
}
void limit_all(nb::list tensors, double bound) {
  GradMode off(false);
  const double params[] = {-bound, bound};
  for (const Tensor& t : tensors_of(tensors)) map_call_into(map_row<Clip>(), t, {&t, 1}, params);
}

nb::list rules() {
  nb::list all;
  for (int i = 0; i < optim::rule_count(); i++) {
    const RuleRow& r = optim::rule_row(i);
    nb::list slots, hyper, scalars;
    for (int j = 0; j < r.nslots; j++) slots.append(nb::str(r.slots[j].data()));
    for (int j = 0; j < r.nhyper; j++) hyper.append(nb::make_tuple(nb::str(r.hyper[j].name.data()), r.hyper[j].value));
    for (int j = 0; j < r.nscalars; j++) scalars.append(nb::str(r.scalars[j].data()));
    nb::dict row;
    row["name"] = nb::str(r.name.data());
    row["doc"] = nb::str(r.doc.data());
    row["index"] = i;
    row["slots"] = nb::tuple(slots);
    row["hyper"] = nb::tuple(hyper);
    row["scalars"] = nb::tuple(scalars);
    row["sums"] = r.nsums;
    row["shared"] = r.nsums && r.scope == optim::Scope::Model;
    row["noise"] = r.noise;
    row["exact"] = r.exact;
    all.append(row);
  }
  return all;
}

}  // namespace

// The host's part of an optimizer step in a captured graph; false: it must be captured anew.
bool replay(Driver& d, nb::list groups, cuda::Capture& graph, size_t i) {
  d.begin();
  for (nb::handle h : groups) add_group(d, h);
  return d.replay(graph.replay(i));
}
nb::tuple replay_result(Driver& d, cuda::Capture& graph, size_t i) {
  if (!graph.replay(i).measured) return nb::make_tuple(nb::none(), false);
  optim::StepResult r = d.replay_result(graph.replay(i));
  return nb::make_tuple(r.norm, r.skipped);
}

void bind_optim(nb::module_& m) {
  nb::class_<cuda::Capture>(m, "_Graph", "A captured step (cuda/capture.h).")
      .def(
          "__init__",
          [](cuda::Capture* self, const std::string& device) {
            new (self) cuda::Capture(device_at(nb::str(device.c_str()), "capture"));
          },
          nb::arg("device"))
      .def("end", &cuda::Capture::end)
      .def("abort", &cuda::Capture::abort)
      .def("prepare", &cuda::Capture::prepare)
      .def("launch", &cuda::Capture::launch)
      .def_prop_ro("steps", &cuda::Capture::steps)
      .def("undo_step", &cuda::Capture::undo_step, nb::arg("driver"), nb::arg("i"));
  m.def("_capturing", [] { return cuda::capture() != nullptr; }, "Whether a step is being captured.");
  nb::class_<Driver>(m, "OptimDriver", "The table, the states and the step of one optimizer.")
      .def(nb::init<>())
      .def("step", &step, nb::arg("groups"), nb::arg("grads").none(), nb::arg("clip_norm").none(),
           nb::arg("clip_value").none(), nb::arg("scale").none(), nb::arg("origins") = nb::none(),
           "(norm or None, skipped).")
      .def("backward_step", &backward_step, nb::arg("loss"), nb::arg("groups"), nb::arg("clip_value").none(),
           "Backward from the loss; each parameter is stepped as soon as its gradient is complete, which is not kept.")
      .def("replay", &replay, nb::arg("groups"), nb::arg("graph"), nb::arg("i"))
      .def("replay_result", &replay_result, nb::arg("graph"), nb::arg("i"))
      .def("get_state", &get_state, nb::arg("p"), "The step count, the state tensors and the state numbers of p.")
      .def("set_state", &set_state, nb::arg("p"), nb::arg("t"), nb::arg("slots"), nb::arg("scalars") = nb::make_tuple(),
           nb::arg("rest") = nb::none(), "Puts back what get_state or stored_state gave; the next step converts it.")
      .def("stored_state", &stored_state, nb::arg("p"), "As get_state, in the form in which it is kept, and the rest.")
      .def("forget", [](Driver& d, const Tensor& p) { d.forget(p); }, nb::arg("p"), "Drops the state of p.");
  m.def("optim_rules", &rules, "Rows of the registry of update rules.");
  m.def(
      "optim_check",
      [](int rule, nb::list hyper, nb::handle weight_decay) {
        const RuleRow& row = row_at(rule);
        for (int i = 0; i < row.nhyper; i++) check_hyper(row.hyper[i], number(hyper[size_t(i)]));
        check_hyper({"weight_decay", 0, Range::NonNegative}, number(weight_decay));
      },
      nb::arg("rule"), nb::arg("hyper"), nb::arg("weight_decay"),
      "Raises ValueError for a hyper-parameter out of range.");
  m.def(
      "optim_check_parameter", [](const Tensor& p) { optim::check_parameter(p); }, nb::arg("p"),
      "Raises unless p is a leaf that an optimizer can write.");
  m.def("optim_pure", &pure_step, nb::arg("rule"), nb::arg("p"), nb::arg("g"), nb::arg("slots"), nb::arg("scalars"),
        nb::arg("hyper"), nb::arg("weight_decay"), nb::arg("decoupled"), nb::arg("t"), nb::arg("sums"),
        "One update without writing: (new p, new slots, new scalars).");
  m.def("optim_pure_sums", &pure_sums, nb::arg("rule"), nb::arg("p"), nb::arg("g"), nb::arg("slots"),
        nb::arg("scalars"), nb::arg("hyper"), nb::arg("weight_decay"), nb::arg("decoupled"), nb::arg("t"),
        "What one tensor adds to the sums of its rule.");
  m.def(
      "optim_zero_grad",
      [](nb::list params) {
        for (nb::handle p : params) {
          const Tensor& t = checked_tensor(p, "zero_grad");
          if (t->meta) t->meta->grad = Tensor();
        }
      },
      nb::arg("params"), "Sets the gradients to None.");
  m.def(
      "optim_slot_bytes",
      [](const Tensor& p, int format, bool exact) {
        return optim::bytes_of(optim::format_for(format_at(format), exact, p), p);
      },
      nb::arg("p"), nb::arg("format"), nb::arg("exact"), "Bytes of one state of p.");
  m.def("optim_scalar", [](double v) { return full({}, v, DType::F64); }, nb::arg("v"), "A 0-d float64 number.");
  m.def("optim_count", [](int64_t n) { return full_int({}, n, DType::I64); }, nb::arg("n"), "A 0-d int64 step count.");
  m.def(
      "optim_zeros_like",
      [](const Tensor& p) { return zeros(p.shape(), p.dtype() == DType::F64 ? DType::F64 : DType::F32, p.device()); },
      nb::arg("p"), "An empty state of p.");
  m.def("optim_copy", &copy_all, nb::arg("targets"), nb::arg("sources"),
        "Copies the values of each source into its target.");
  m.def("optim_scale", &scale_all, nb::arg("tensors"), nb::arg("factor"),
        "Multiplies each tensor by factor, in place.");
  m.def("optim_limit", &limit_all, nb::arg("tensors"), nb::arg("bound"),
        "Limits each element to [-bound, bound], in place.");
  m.def(
      "optim_norm",
      [](nb::list tensors) {
        bool finite = true;
        double norm = optim::global_norm(tensors_of(tensors), &finite);
        return nb::make_tuple(norm, finite);
      },
      nb::arg("tensors"), "(sqrt of the sum of squares, whether all elements are finite).");
}

}  // namespace pb::py
