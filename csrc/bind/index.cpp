// x[key] and x[key] = value, as NumPy defines them. Integers, slices, None and ... become one view; integer arrays and
// masks become one take or one put on that view.
#include <string>

#include "bind/caster.h"
#include "cuda/gather_call.h"
#include "families/gather.h"
#include "families/map.h"
#include "families/view.h"

namespace pb::py {

namespace {

int64_t int_of(PyObject* o) {
  Py_ssize_t v = PyNumber_AsSsize_t(o, PyExc_IndexError);
  if (v == -1 && PyErr_Occurred()) nb::raise_python_error();
  return int64_t(v);
}

int64_t in_range(int64_t i, int64_t size, int axis, const Tensor& x) {
  if (i < -size || i >= size)
    fail<IndexError>("index",
                     "index " + std::to_string(i) + " is out of bounds for axis " + std::to_string(axis) +
                         " with size " + std::to_string(size),
                     "indices run from -size to size - 1", x);
  return i < 0 ? i + size : i;
}

// One window in two layouts: on x's memory, and, where the graph needs it, on x as if it were contiguous.
struct Window {
  Geometry at[2];
  int layouts;
  explicit Window(const Tensor& x) : layouts(traced(x) ? 2 : 1) {
    at[0] = geometry(x);
    if (layouts == 2) at[1] = dense(x);
  }
  void select(int d, int64_t i) {
    for (int k = 0; k < layouts; k++) {
      at[k].offset += i * at[k].strides[d];
      at[k].shape.erase(d);
      at[k].strides.erase(d);
    }
  }
  void cut(int d, int64_t start, int64_t length, int64_t step) {
    for (int k = 0; k < layouts; k++) {
      if (length > 0) at[k].offset += start * at[k].strides[d];
      at[k].strides[d] *= step;
      at[k].shape[d] = length;
    }
  }
  void insert(int d) {
    for (int k = 0; k < layouts; k++) {
      at[k].shape.insert(d, 1);
      at[k].strides.insert(d, 0);
    }
  }
};

// An advanced entry: checked int64 indices for one axis of the window.
struct Picked {
  Tensor index;
  int dim;  // of the window
  int64_t size;
};

struct Parsed {
  Window window;
  std::vector<Picked> picked;
  int result_at = 0;       // dims of the result before the picked ones, when they stay in place
  bool separated = false;  // another kind of entry stands between two picked ones: their dims come first
  bool same = true;        // no entry changed the window
  explicit Parsed(const Tensor& x) : window(x) {}
};

enum class Kind { Int, Slice, New, Rest, Array, Mask };

struct Entry {
  Kind kind;
  PyObject* object = nullptr;
  Tensor array;
  int64_t value = 0;
  int axes() const { return kind == Kind::Mask ? array.ndim() : kind == Kind::New || kind == Kind::Rest ? 0 : 1; }
};

Entry entry_of(PyObject* o, const Tensor& x) {
  if (PyLong_CheckExact(o)) return {Kind::Int, o, {}, int_of(o)};
  if (PySlice_Check(o)) return {Kind::Slice, o, {}, 0};
  if (o == Py_None) return {Kind::New, o, {}, 0};
  if (o == Py_Ellipsis) return {Kind::Rest, o, {}, 0};
  if (PyFloat_Check(o) || PyUnicode_Check(o))
    fail<IndexError>("index", std::string("a ") + Py_TYPE(o)->tp_name + " is no index",
                     "use integers, slices, None, ..., integer arrays or bool masks", x);
  Tensor t;
  if (is_tensor(o))
    t = unwrap(o);
  else if (PyBool_Check(o))
    t = asarray(o, true);
  else if (PyIndex_Check(o) && !PyObject_CheckBuffer(o))
    return {Kind::Int, o, {}, int_of(o)};
  else
    t = asarray(o, true);
  if (t.size() == 0 && is_float(t.dtype()) && PySequence_Check(o)) {
    GradMode off(false);
    t = cast(t, DType::I64);  // an empty list
  }
  if (t.dtype() == DType::Bool) return {Kind::Mask, o, t, 0};
  if (!is_integer(t.dtype()))
    fail<IndexError>("index", std::string("an array of ") + dtype_name(t.dtype()) + " is no index",
                     "cast it to integers or to a bool mask", x, t);
  if (t.ndim() == 0) return {Kind::Int, o, {}, item_int(t)};
  return {Kind::Array, o, t, 0};
}

// The positions of true elements, one array per axis of the mask.
std::vector<Tensor> positions(const Tensor& mask) {
  GradMode off(false);
  if (on_cuda(mask)) return cuda::positions(mask);
  Tensor m = contiguous(detach(mask));
  const bool* p = m.data<bool>();
  int64_t n = 0;
  for (int64_t i = 0; i < m.size(); i++) n += p[i];
  std::vector<Tensor> out;
  for (int d = 0; d < m.ndim(); d++) out.push_back(empty({n}, DType::I64));
  int64_t at = 0, index[kMaxDims] = {};
  for (int64_t i = 0; i < m.size(); i++) {
    if (p[i]) {
      for (int d = 0; d < m.ndim(); d++) out[size_t(d)].data<int64_t>()[at] = index[d];
      at++;
    }
    for (int d = m.ndim() - 1; d >= 0 && ++index[d] == m.shape()[d]; d--) index[d] = 0;
  }
  return out;
}

// Puts the entries on x from left to right; `axis` counts axes of x, `d` dims of the window.
class Walk {
 public:
  Walk(const Tensor& x, Parsed& out, bool advanced) : x_(x), out_(out), advanced_(advanced) {}

  void put(const Entry& e, int rest) {
    Window& w = out_.window;
    switch (e.kind) {
      case Kind::Int: {
        int64_t i = in_range(e.value, x_.shape()[axis_], axis_, x_);
        if (advanced_) met();
        w.select(d_, i);
        axis_++;
        break;
      }
      case Kind::Slice: {
        Py_ssize_t start, stop, step;
        if (PySlice_Unpack(e.object, &start, &stop, &step)) nb::raise_python_error();
        Py_ssize_t n = PySlice_AdjustIndices(Py_ssize_t(x_.shape()[axis_]), &start, &stop, step);
        if (n != x_.shape()[axis_] || step != 1) w.cut(d_, start, n, step);
        other();
        d_++;
        axis_++;
        break;
      }
      case Kind::New:
        other();
        w.insert(d_++);
        break;
      case Kind::Rest:
        other();
        d_ += rest;
        axis_ += rest;
        break;
      case Kind::Array: {
        met();
        int64_t n = x_.shape()[axis_];
        out_.picked.push_back({index_rows(e.array, n, axis_, "index", x_.device()), d_, n});
        d_++;
        axis_++;
        break;
      }
      case Kind::Mask:
        mask(e.array);
    }
  }

 private:
  void met() {
    if (state_ == 0) out_.result_at = d_;
    if (state_ == 2) out_.separated = true;
    if (state_ != 2) state_ = 1;
  }
  void other() {
    if (state_ == 1) state_ = 2;
  }

  void mask(const Tensor& m) {
    met();
    if (m.ndim() == 0) {  // a new axis of which one or no element is taken
      out_.window.insert(d_);
      out_.picked.push_back({to_device(arange(item_int(m) ? 1 : 0), x_.device()), d_, 1});
      d_++;
      return;
    }
    for (int i = 0; i < m.ndim(); i++)
      if (m.shape()[i] != x_.shape()[axis_ + i])
        fail<IndexError>("index",
                         "a mask of size " + std::to_string(m.shape()[i]) + " stands at axis " +
                             std::to_string(axis_ + i) + " of size " + std::to_string(x_.shape()[axis_ + i]),
                         "a bool mask must have the sizes of the axes that it covers", x_, m);
    for (const Tensor& found : positions(m)) {
      if (on_cuda(m) && !(m.device() == x_.device())) mixed_devices("index", x_, m);
      Tensor t = to_device(found, x_.device());
      out_.picked.push_back({t, d_, x_.shape()[axis_]});
      d_++;
      axis_++;
    }
  }

  const Tensor& x_;
  Parsed& out_;
  bool advanced_;
  int axis_ = 0, d_ = 0;
  int state_ = 0;  // 0: no picked entry yet, 1: the last entry was one, 2: something else followed
};

Parsed parse(const Tensor& x, PyObject* key) {
  Parsed out(x);
  if (PyLong_CheckExact(key) && x.ndim() > 0) {
    out.window.select(0, in_range(int_of(key), x.shape()[0], 0, x));
    out.same = false;
    return out;
  }
  bool is_tuple = PyTuple_Check(key);
  Py_ssize_t n = is_tuple ? PyTuple_Size(key) : 1;
  Entry few[4];
  std::vector<Entry> many;
  Entry* entries = few;
  if (n > 4) {
    many.resize(size_t(n));
    entries = many.data();
  }
  int axes = 0, rests = 0;
  bool advanced = false;
  for (Py_ssize_t i = 0; i < n; i++) {
    entries[i] = entry_of(is_tuple ? PyTuple_GetItem(key, i) : key, x);
    axes += entries[i].axes();
    rests += entries[i].kind == Kind::Rest;
    advanced = advanced || entries[i].kind == Kind::Array || entries[i].kind == Kind::Mask;
  }
  if (rests > 1) fail<IndexError>("index", "... stands more than once", "write the slices out", x);
  if (axes > x.ndim())
    fail<IndexError>("index",
                     std::to_string(axes) + " indices for a tensor of " + std::to_string(x.ndim()) + " dimensions",
                     "use at most one index per dimension", x);
  Walk walk(x, out, advanced);
  for (Py_ssize_t i = 0; i < n; i++) walk.put(entries[i], x.ndim() - axes);
  out.same = n == 0 || (n == 1 && entries[0].kind == Kind::Rest);
  return out;
}

Tensor basic(const Tensor& x, const Parsed& p) { return view(x, p.window.at[0], p.window.at[1], "slice"); }

// The picked axes of a window as one axis `at`, indexed by one array.
struct Layout {
  Dims order;  // of the window's dims, picked ones together; empty when they are so already
  Dims inverse;
  Shape before, merged;  // of the permuted window
  int at = 0;
  Tensor index;

  Tensor lay(const Tensor& w) const { return reshape(order.size() ? permute(w, order) : w, merged); }
  Tensor unlay(const Tensor& m) const {
    Tensor w = reshape(m, before);
    return order.size() ? permute(w, inverse) : w;
  }
};

Tensor joined_index(const std::vector<Picked>& picked) {
  if (picked.size() == 1) return picked[0].index;
  GradMode off(false);
  Shape shape = picked[0].index.shape();
  for (const Picked& p : picked) shape = broadcast(shape, p.index.shape(), "index");
  if (on_cuda(picked[0].index)) {
    std::vector<Tensor> index;
    std::vector<int64_t> sizes;
    for (const Picked& p : picked) index.push_back(p.index), sizes.push_back(p.size);
    return cuda::joined(index, sizes, shape);
  }
  Tensor out = empty(shape, DType::I64);
  int64_t* o = out.data<int64_t>();
  int64_t n = out.size();
  for (size_t k = 0; k < picked.size(); k++) {
    Tensor i = contiguous(broadcast_to(picked[k].index, shape));
    const int64_t* p = i.data<int64_t>();
    if (k == 0)
      for (int64_t j = 0; j < n; j++) o[j] = p[j];
    else
      for (int64_t j = 0; j < n; j++) o[j] = o[j] * picked[k].size + p[j];
  }
  return out;
}

Layout layout_of(const Tensor& w, const Parsed& p) {
  Layout l;
  int n = w.ndim(), count = int(p.picked.size());
  l.at = p.separated ? 0 : p.result_at;
  if (p.picked[0].dim != l.at || p.picked.back().dim != l.at + count - 1) {
    Dims is_picked(n, 0);
    for (const Picked& k : p.picked) is_picked[k.dim] = 1;
    for (int d = 0; l.order.size() < l.at; d++)
      if (!is_picked[d]) l.order.push_back(d);
    int next = l.at ? int(l.order.back()) + 1 : 0;
    for (const Picked& k : p.picked) l.order.push_back(k.dim);
    for (int d = next; d < n; d++)
      if (!is_picked[d]) l.order.push_back(d);
    l.inverse = Dims(n);
    for (int d = 0; d < n; d++) l.inverse[int(l.order[d])] = d;
  }
  int64_t merged = 1;
  for (int d = 0; d < n; d++) l.before.push_back(w.shape()[l.order.size() ? int(l.order[d]) : d]);
  for (int d = 0; d < n; d++) {
    if (d < l.at || d >= l.at + count)
      l.merged.push_back(l.before[d]);
    else
      merged *= l.before[d];
    if (d == l.at + count - 1) l.merged.push_back(merged);
  }
  l.index = joined_index(p.picked);
  return l;
}

// NumPy lets a value have more leading axes of size 1 than its place has axes.
Tensor trimmed(Tensor v, int ndim) {
  while (v.ndim() > ndim && v.shape()[0] == 1) {
    Shape s = v.shape();
    s.erase(0);
    v = reshape(v, s);
  }
  return v;
}

bool fits(const Shape& s, const Shape& place) {
  int shift = place.size() - s.size();
  for (int i = 0; i < s.size(); i++)
    if (shift < 0 || (s[i] != 1 && s[i] != place[i + shift])) return false;
  return true;
}

void check_value(const Tensor& target, const Shape& place, const Tensor& v) {
  if (!fits(v.shape(), place))
    fail<ShapeError>("setitem", "the value does not fit the selection of shape " + to_string(place),
                     "its shape must broadcast to that of the selection", target, v);
  if (!v.weak() && category(v.dtype()) == Category::Float && !is_float(target.dtype()))
    fail<DTypeError>("setitem", "a float value cannot be written to an integer or bool tensor", "cast it with .astype",
                     target, v);
}

// Writes rows of the window; what its elements were before keeps its gradient outside the written places.
void put_into(const Tensor& w, const Layout& l, const Tensor& source) {
  check_writable(w, "setitem");
  Shape place;
  for (int d = 0; d < l.at; d++) place.push_back(l.merged[d]);
  for (int64_t s : l.index.shape()) place.push_back(s);
  for (int d = l.at + 1; d < l.merged.size(); d++) place.push_back(l.merged[d]);
  Tensor v = trimmed(source, place.size());
  check_value(w, place, v);
  InPlace write(w, "setitem");
  if (!v.weak() && !(v.device() == w.device())) mixed_devices("setitem", w, v);
  v = cast(broadcast_to(to_device(v, w.device()), place), w.dtype());
  if (v->storage == w->storage) v = with_copy(v);
  {
    GradMode off(false);
    Tensor raw = detach(w), laid = l.lay(raw);
    bool shares = laid->storage == raw->storage && laid.contiguous();
    if (!shares) laid = clone(laid);
    write_rows(laid, l.index, detach(v), l.at);
    if (!shares) copy_into(raw, l.unlay(laid));
  }
  write.done();
  Tensor now = detach(w);
  Tensor before = write.before();
  if (any_wants(before, v)) {
    Layout map = l;
    map.index = Tensor();  // kept as a saved slot
    record("setitem", {before, v}, now, {Saved(l.index)}, [map, place](const Slots& s, const PullArgs& a) {
      Tensor index = s[0], g = map.lay(a.g[0]);
      if (a.need(0)) a.gin[0] = map.unlay(put_rows(g, index, zeros(place, g.dtype(), g.device()), map.at));
      if (a.need(1)) a.gin[1] = pull_put_values(g, index, map.at);
    });
  }
  push_forward({before, v}, now, [&](const Tensor*, const Tensor* t, const Tensor&) {
    Tensor base = t[0] ? l.lay(t[0]) : zeros(l.merged, w.dtype(), w.device());
    return l.unlay(put_rows(base, l.index, t[1] ? t[1] : zeros(place, w.dtype(), w.device()), l.at));
  });
  write.replace(now);
}

// `x[i] += v` reads a view, writes through it and assigns it to its own place: nothing is left to do.
bool is_window(const Tensor& v, const Tensor& x, const Geometry& g) {
  if (v.weak() || v->storage != x->storage || !v->meta || !v->meta->base || v.dtype() != x.dtype()) return false;
  const Tensor& base = x->meta && x->meta->base ? x->meta->base : x;
  return v->meta->base.is(base) && v->offset == g.offset && v.shape() == g.shape && v.strides() == g.strides;
}

}  // namespace

Tensor get_item(const Tensor& x, PyObject* key) {
  Parsed p = parse(x, key);
  if (p.picked.empty()) return basic(x, p);
  Tensor w = p.same ? x : basic(x, p);
  Layout l = layout_of(w, p);
  return take_rows(l.lay(w), l.index, l.at);
}

void set_item(const Tensor& x, PyObject* key, const Tensor& value) {
  Parsed p = parse(x, key);
  if (p.picked.empty()) {
    if (is_window(value, x, p.window.at[0])) return;
    Tensor w = p.same ? x : basic(x, p);
    Tensor v = trimmed(value, w.ndim());
    check_value(w, w.shape(), v);
    assign(w, v, "setitem");
    return;
  }
  Tensor w = basic(x, p);
  put_into(w, layout_of(w, p), value);
}

}  // namespace pb::py
