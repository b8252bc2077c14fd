// Layer, root-mean-square, group and batch normalisation.
#include "families/row.h"
#include "families/row_call.h"
#include "fewbit/block.h"
#include "tensor/profile.h"

namespace pb {

namespace {

Tensor times(const Tensor& x, const Tensor& weight) { return weight ? x * weight : x; }
Tensor plus(const Tensor& x, const Tensor& bias) { return bias ? x + bias : x; }

// Note [Norms in 16 bits]
// Rows are computed in float32 or float64; what backward keeps has the type of the caller: x itself, and one or two
// numbers per row in the type of computation. A product that reads the output makes it anew from the same x, so of the
// two one is kept.
struct Precision {
  DType compute, result;
};
// The cotangent of an operand in its own type.
Tensor like(const Tensor& g, const Tensor& operand) { return cast(g, operand.dtype()); }
Tensor widened(const Tensor& t, DType dtype) { return t ? cast(t, dtype) : t; }

Tensor row_scale(const Tensor& w, const Tensor& x, DType dtype) {
  return w ? w : ones({x.shape().back()}, dtype, x.device());
}
Tensor row_shift(const Tensor& b, const Tensor& x, DType dtype) {
  return b ? b : zeros({x.shape().back()}, dtype, x.device());
}

// slots: x, weight, bias, mean, 1 / deviation
void layer_norm_pull(const Slots& s, const PullArgs& a, double eps, Precision p) {
  Tensor x = s[0], w = s[1], g = a.g[0];
  bool sums = a.need(1) || a.need(2);
  if (plain_pull(g, x, w)) {
    RowResult r = row_run<LayerNormPull>({rows_of(g, p.compute), rows_of(x, p.compute)}, {row_scale(w, x, p.compute)},
                                         {s[3], s[4]}, 0, sums, x.dtype());
    if (a.need(0)) a.gin[0] = like(r.y, x);
    if (a.need(1)) a.gin[1] = like(r.column[0], w);
    if (a.need(2)) a.gin[2] = like(r.column[1], s[2]);
    return;
  }
  // The kept statistics have no edge to x, so the graph makes them anew.
  Tensor wide = cast(x, p.compute), wide_g = cast(g, p.compute);
  Tensor scale = row_scale(widened(w, p.compute), x, p.compute);
  At<Tensor> f = row_numbers<LayerNorm>({wide}, {}, {}, eps);
  At<Tensor> e = row_numbers<LayerNormPull>({wide_g, wide}, {scale}, {f.s[0], f.s[1]});
  if (a.need(0)) a.gin[0] = like(LayerNormPull::out(e), x);
  if (a.need(1)) a.gin[1] = like(sum_rows(LayerNormPull::column<0>(e)), w);
  if (a.need(2)) a.gin[2] = like(sum_rows(wide_g), s[2]);
}

RowResult layer_norm_run(const Tensor& x, const Tensor& w, const Tensor& b, double eps, Precision p) {
  return row_run<LayerNorm>({rows_of(x, p.compute)}, {row_scale(w, x, p.compute), row_shift(b, x, p.compute)}, {}, eps,
                            false, p.result);
}

Tensor layer_norm_rows(const Tensor& x, const Tensor& w, const Tensor& b, double eps, Precision p) {
  Tensor wx = x, ww = w, wb = b;
  if (x.size() == 0 || has_tangent(x) || has_tangent(w) || has_tangent(b))
    wx = cast(x, p.compute), ww = widened(w, p.compute), wb = widened(b, p.compute);
  if (x.size() == 0) return cast(plus(times(wx, ww), wb), p.result);
  if (has_tangent(x) || has_tangent(w) || has_tangent(b))
    return cast(row_graph<LayerNorm>({wx}, {row_scale(ww, x, p.compute), row_shift(wb, x, p.compute)}, {}, eps),
                p.result);
  RowResult r = layer_norm_run(x, w, b, eps, p);
  Tensor y = r.y;
  if (!any_wants(x, w, b)) return y;
  record_rebuilt(
      "layer_norm", {x, w, b}, y,
      {saved_whole(x, operand_bits("layer_norm", 0)), Saved(w), Saved(b), Saved(r.stat[0]), Saved(r.stat[1])},
      [eps, p](const Slots& s, const PullArgs& a) { layer_norm_pull(s, a, eps, p); },
      [eps, p](const Slots& s) { return layer_norm_run(s[0], s[1], s[2], eps, p).y; }, kRebuildsForProducts);
  return y;
}

// slots: x, weight, 1 / root mean square
void rms_norm_pull(const Slots& s, const PullArgs& a, double eps, Precision p) {
  Tensor x = s[0], w = s[1], g = a.g[0];
  if (plain_pull(g, x, w)) {
    RowResult r = row_run<RmsNormPull>({rows_of(g, p.compute), rows_of(x, p.compute)}, {row_scale(w, x, p.compute)},
                                       {s[2]}, 0, a.need(1), x.dtype());
    if (a.need(0)) a.gin[0] = like(r.y, x);
    if (a.need(1)) a.gin[1] = like(r.column[0], w);
    return;
  }
  Tensor wide = cast(x, p.compute);
  At<Tensor> f = row_numbers<RmsNorm>({wide}, {}, {}, eps);
  At<Tensor> e =
      row_numbers<RmsNormPull>({cast(g, p.compute), wide}, {row_scale(widened(w, p.compute), x, p.compute)}, {f.s[0]});
  if (a.need(0)) a.gin[0] = like(RmsNormPull::out(e), x);
  if (a.need(1)) a.gin[1] = like(sum_rows(RmsNormPull::column<0>(e)), w);
}

RowResult rms_norm_run(const Tensor& x, const Tensor& w, double eps, Precision p) {
  return row_run<RmsNorm>({rows_of(x, p.compute)}, {row_scale(w, x, p.compute)}, {}, eps, false, p.result);
}

Tensor rms_norm_rows(const Tensor& x, const Tensor& w, double eps, Precision p) {
  Tensor wx = x, ww = w;
  if (x.size() == 0 || has_tangent(x) || has_tangent(w)) wx = cast(x, p.compute), ww = widened(w, p.compute);
  if (x.size() == 0) return cast(times(wx, ww), p.result);
  if (has_tangent(x) || has_tangent(w))
    return cast(row_graph<RmsNorm>({wx}, {row_scale(ww, x, p.compute)}, {}, eps), p.result);
  RowResult r = rms_norm_run(x, w, eps, p);
  Tensor y = r.y;
  if (!any_wants(x, w)) return y;
  record_rebuilt(
      "rms_norm", {x, w}, y, {saved_whole(x, operand_bits("rms_norm", 0)), Saved(w), Saved(r.stat[0])},
      [eps, p](const Slots& s, const PullArgs& a) { rms_norm_pull(s, a, eps, p); },
      [eps, p](const Slots& s) { return rms_norm_run(s[0], s[1], eps, p).y; }, kRebuildsForProducts);
  return y;
}

// The shape of the normalised axes, which must be the last ones.
Shape normal_shape(const Tensor& x, const Dims& axes, const char* op) {
  if (x.ndim() == 0) fail<ShapeError>(op, "a 0-d tensor has no axis to normalise over", "give x an axis", x);
  Dims named(x.ndim(), 0);
  for (int64_t axis : axes) named[normalize_axis(axis, x.ndim(), op)]++;
  Shape shape;
  for (int i = 0; i < x.ndim(); i++) {
    if (named[i] != (i >= x.ndim() - axes.size()) || axes.size() == 0)
      fail<ShapeError>(op, "the axes " + to_string(axes) + " are not the last ones, each named once",
                       "move them to the end with pb.moveaxis", x);
    if (named[i]) shape.push_back(x.shape()[i]);
  }
  return shape;
}

void check_parameter(const Tensor& t, const Shape& shape, const char* op, const char* name) {
  if (bool(t) && !(t.shape() == shape))
    fail<ShapeError>(op, std::string(name) + " must have shape " + to_string(shape),
                     "it scales or shifts one element each", t);
}

// The promoted type of x and its parameters, as one float type that rows compute in; f's result is cast back.
struct Typed {
  Tensor x, w, b;
  DType result = DType::F32;
};
Typed typed(const Tensor& input, const Tensor& w, const Tensor& b, const char* op) {
  Typed t{as_float(input), w, b, DType::F32};
  std::vector<Tensor> in{t.x};
  if (w) in.push_back(w);
  if (b) in.push_back(b);
  t.result = result_dtype(in, op);
  DType compute = row_compute(t.result);
  t.x = cast(t.x, compute);
  if (w) t.w = cast(w, compute);
  if (b) t.b = cast(b, compute);
  return t;
}

Precision precision_of(const Tensor& x, const Tensor& w, const Tensor& b, const char* op) {
  std::vector<Tensor> in{x};
  if (w) in.push_back(w);
  if (b) in.push_back(b);
  DType result = result_dtype(in, op);
  return {row_compute(result), result};
}

Tensor flat(const Tensor& t) { return bool(t) && t.ndim() != 1 ? reshape(t, {t.size()}) : t; }

// x with the normalised axes as one, when there are several.
Tensor merged(const Tensor& x, int axes) {
  if (axes == 1) return x;
  Shape s;
  for (int i = 0; i < x.ndim() - axes; i++) s.push_back(x.shape()[i]);
  int64_t n = 1;
  for (int i = x.ndim() - axes; i < x.ndim(); i++) n *= x.shape()[i];
  s.push_back(n);
  return reshape(x, s);
}

}  // namespace

Tensor layer_norm(const Tensor& input, const Tensor& weight, const Tensor& bias, const Dims& axes, double eps) {
  Profiled scope("layer_norm");
  Shape shape = normal_shape(input, axes, "layer_norm");
  check_parameter(weight, shape, "layer_norm", "weight");
  check_parameter(bias, shape, "layer_norm", "bias");
  Tensor x = as_float(input);
  Precision p = precision_of(x, weight, bias, "layer_norm");
  Tensor y = layer_norm_rows(merged(x, axes.size()), flat(weight), flat(bias), eps, p);
  return axes.size() == 1 ? y : reshape(y, input.shape());
}

Tensor rms_norm(const Tensor& input, const Tensor& weight, const Dims& axes, double eps) {
  Profiled scope("rms_norm");
  Shape shape = normal_shape(input, axes, "rms_norm");
  check_parameter(weight, shape, "rms_norm", "weight");
  Tensor x = as_float(input);
  Precision p = precision_of(x, weight, {}, "rms_norm");
  Tensor y = rms_norm_rows(merged(x, axes.size()), flat(weight), eps, p);
  return axes.size() == 1 ? y : reshape(y, input.shape());
}

namespace {

// (C) as (C, 1, ...), to meet (N, C, ...).
Tensor per_channel(const Tensor& t, int ndim) {
  if (!bool(t)) return t;
  Shape s(ndim - 1, 1);
  s[0] = t.size();
  return reshape(t, s);
}

void check_channels(const Tensor& x, const char* op) {
  if (x.ndim() < 2) fail<ShapeError>(op, "x must have the shape (batch, channels, ...)", "add the missing axes", x);
}

}  // namespace

namespace {

Dims batch_axes(const Tensor& x) {
  Dims axes{0};
  for (int i = 2; i < x.ndim(); i++) axes.push_back(i);
  return axes;
}

// running = (1 - momentum) * running + momentum * now, outside the graph; saved slots on it see the write.
void update_running(const Tensor& running, const Tensor& now, double momentum) {
  if (!bool(running)) return;
  GradMode off(false);
  Tensor old = detach(running);
  copy_into(old, old * Tensor(1 - momentum) +
                     cast(reshape(detach(now), running.shape()), row_compute(old.dtype())) * Tensor(momentum));
  running->storage->version++;
}

// x as [outer, channels, inner]. Short segments are summed as columns, a vector of them at a time.
struct Channels {
  int64_t outer, channels, inner, count;
  bool columns;
  explicit Channels(const Tensor& x) : outer(x.shape()[0]), channels(x.shape()[1]), inner(1) {
    for (int i = 2; i < x.ndim(); i++) inner *= x.shape()[i];
    count = outer * inner;
    columns = inner < 16;
  }
  ChannelCall call(const Tensor& x, const Tensor& g) const {
    ChannelCall c{};
    c.outer = outer;
    c.channels = columns ? channels * inner : channels;
    c.inner = columns ? 1 : inner;
    c.x = x.raw();
    c.g = g ? g.raw() : nullptr;
    return c;
  }
  // A number per channel as the kernel wants it.
  Tensor spread(const Tensor& t) const {
    if (!columns || inner == 1) return t;
    return contiguous(broadcast_to(expand_dims(t, 1), {channels, inner}));
  }
  // x, g and m are contiguous and outside the graph.
  Tensor sums(ChannelCall::Sum which, const Tensor& x, const Tensor& g, const Tensor& m) const {
    ChannelCall c = call(x, g);
    c.sum = which;
    Tensor wide = m ? spread(m) : Tensor(), out = empty({c.channels}, row_compute(x.dtype()), x.device());
    c.m = m ? wide.raw() : nullptr;
    c.out = out.raw();
    if (on_cuda(x))
      cuda::channel_sums(c, x, g, out, {});
    else
      row_table().channel_sums[x.dtype() == DType::F64](c);
    return folded(out);
  }
  Tensor folded(const Tensor& t) const { return columns && inner > 1 ? sum(reshape(t, {channels, inner}), {1}) : t; }
  // The sums of g and of g (x - m).
  std::pair<Tensor, Tensor> pull_sums(const Tensor& x, const Tensor& g, const Tensor& m) const {
    if (!on_cuda(x)) return {sums(ChannelCall::G, x, g, m), sums(ChannelCall::Product, x, g, m)};
    ChannelCall c = call(x, g);
    c.sum = ChannelCall::G;
    Tensor wide = m ? spread(m) : Tensor(), total = empty({c.channels}, DType::F32, x.device()), along = clone(total);
    c.m = m ? wide.raw() : nullptr;
    cuda::channel_sums(c, x, g, total, along);
    return {folded(total), folded(along)};
  }
  // (x - m) a + b, + g scale, for a result of a type.
  Tensor apply(const Tensor& x, const Tensor& g, const Tensor& m, const Tensor& a, const Tensor& b, const Tensor& scale,
               DType result) const {
    ChannelCall c = call(x, g);
    Tensor out = empty(x.shape(), written_by_rows(x, row_compute(x.dtype()), result), x.device()), wm = spread(m),
           wa = spread(a), wb = spread(b), ws;
    c.m = wm.raw();
    c.a = wa.raw();
    c.b = wb.raw();
    if (g) c.scale = (ws = spread(scale)).raw();
    c.out = out.raw();
    if (on_cuda(x))
      cuda::channel_apply(c, x, g, out);
    else
      row_table().channel_apply[x.dtype() == DType::F64](c);
    return out;
  }
};

}  // namespace

namespace {

// x * w + b with numbers per channel: one pass each way, and the two column sums.
Tensor channel_affine(const Tensor& x, const Tensor& w, const Tensor& b) {
  if (!bool(w) && !bool(b)) return x;
  int nd = x.ndim();
  if (x.size() == 0 || composed_only(x, x.dtype()) || has_tangent(x) || has_tangent(w) || has_tangent(b))
    return plus(times(x, per_channel(w, nd)), per_channel(b, nd));
  Channels c(x);
  Tensor y;
  {
    GradMode off(false);
    Tensor none = zeros({c.channels}, x.dtype(), x.device()), one = ones({c.channels}, x.dtype(), x.device());
    y = c.apply(plain(x, x.dtype()), {}, none, w ? plain(w, x.dtype()) : one, b ? plain(b, x.dtype()) : none, {},
                x.dtype());
  }
  record("channel_affine", {x, w, b}, y, {Saved(x), Saved(w)}, [](const Slots& s, const PullArgs& a) {
    Tensor x = s[0], w = s[1], g = a.g[0];
    bool kernel = plain_pull(g, x, w);
    Dims axes = batch_axes(x);
    if (a.need(0)) a.gin[0] = times(g, per_channel(w, x.ndim()));
    if (!kernel) {
      if (a.need(1)) a.gin[1] = sum(g * x, axes);
      if (a.need(2)) a.gin[2] = sum(g, axes);
      return;
    }
    Channels c(x);
    Tensor cx = plain(x, x.dtype()), cg = plain(g, x.dtype());
    auto [total, along] = c.pull_sums(cx, cg, {});
    if (a.need(1)) a.gin[1] = along;
    if (a.need(2)) a.gin[2] = total;
  });
  return y;
}

}  // namespace

Tensor group_norm(const Tensor& input, int64_t groups, const Tensor& weight, const Tensor& bias, double eps) {
  Profiled scope("group_norm");
  check_channels(input, "group_norm");
  int64_t channels = input.shape()[1];
  if (groups < 1 || channels % groups)
    fail<ShapeError>("group_norm",
                     std::to_string(channels) + " channels do not split into " + std::to_string(groups) + " groups",
                     "the number of groups must divide the number of channels", input);
  check_parameter(weight, {channels}, "group_norm", "weight");
  check_parameter(bias, {channels}, "group_norm", "bias");
  Typed t = typed(input, weight, bias, "group_norm");
  if (channels && input.size() / channels >= 16 * input.shape()[0] && input.size() &&
      !composed_only(input, t.x.dtype()) && !(has_tangent(input) || has_tangent(weight) || has_tangent(bias)))
    return group_norm_segments(as_float(input), groups, weight, bias, eps, t.result);
  Tensor y = t.x;
  if (y.size()) {
    int64_t rows = input.shape()[0] * groups;
    y = reshape(layer_norm_rows(reshape(y, {rows, y.size() / rows}), {}, {}, eps, {y.dtype(), y.dtype()}),
                input.shape());
  }
  return cast(channel_affine(y, t.w, t.b), t.result);
}

namespace {

struct BatchStatistics {
  Tensor mean, var;
};

// The composed definition: x - mean, variance and 1 / deviation by recorded ops.
struct GraphNorm {
  Dims axes;
  Tensor centre, d, spread, r;
  GraphNorm(const Tensor& x, double eps) : axes(batch_axes(x)) {
    centre = mean(x, axes, true);
    d = x - centre;
    spread = mean(square(d), axes, true);
    r = rsqrt(spread + Tensor(eps));
  }
};

// slots: x, weight, mean, 1 / deviation, bias
void batch_norm_pull(const Slots& s, const PullArgs& a, double eps, Precision p) {
  Tensor x = s[0], w = s[1], g = a.g[0];
  if (!plain_pull(g, x, w)) {
    Tensor wide = cast(x, p.compute), wide_g = cast(g, p.compute);
    GraphNorm f(wide, eps);
    Tensor hat = f.d * f.r, gw = times(wide_g, per_channel(widened(w, p.compute), x.ndim()));
    if (a.need(0)) a.gin[0] = like(f.r * ((gw - mean(gw, f.axes, true)) - hat * mean(gw * hat, f.axes, true)), x);
    if (a.need(1)) a.gin[1] = like(sum(wide_g * hat, f.axes), w);
    if (a.need(2)) a.gin[2] = like(sum(wide_g, f.axes), s[4]);
    return;
  }
  Channels c(x);
  Tensor cx = operand_of_rows(x, p.compute), cg = operand_of_rows(g, p.compute), m = s[2], r = s[3];
  auto [total, along] = c.pull_sums(cx, cg, m);
  if (a.need(1)) a.gin[1] = like(along * r, w);
  if (a.need(2)) a.gin[2] = like(total, s[4]);
  if (!a.need(0)) return;
  Tensor scale = times(r, w ? plain(w, p.compute) : w), over = Tensor(-1.0 / double(c.count));
  a.gin[0] = like(c.apply(cx, cg, m, scale * r * r * along * over, scale * total * over, scale, x.dtype()), x);
}

// y of the batch's own statistics, which `found` receives in the type of computation.
Tensor batch_norm_train(const Tensor& x, const Tensor& w, const Tensor& b, double eps, BatchStatistics& found,
                        Precision p) {
  if (composed_only(x, p.compute) || has_tangent(x) || has_tangent(w) || has_tangent(b)) {
    GraphNorm f(cast(x, p.compute), eps);
    found = {f.centre, f.spread};
    Tensor scale = per_channel(widened(w, p.compute), x.ndim()), shift = per_channel(widened(b, p.compute), x.ndim());
    return cast(plus(f.d * times(f.r, scale), shift), p.result);
  }
  Channels c(x);
  Tensor y, r;
  {
    GradMode off(false);
    Tensor cx = operand_of_rows(x, p.compute), n = Tensor(double(c.count));
    found.mean = c.sums(ChannelCall::X, cx, {}, {}) / n;
    found.var = c.sums(ChannelCall::Square, cx, {}, found.mean) / n;
    r = rsqrt(found.var + Tensor(eps));
    y = cast(c.apply(cx, {}, found.mean, w ? r * plain(w, p.compute) : r,
                     b ? plain(b, p.compute) : zeros({c.channels}, p.compute, x.device()), {}, p.result),
             p.result);
  }
  std::vector<Saved> saved;
  if (any_wants(x, w, b)) saved = {Saved(x), Saved(w), Saved(found.mean), Saved(r), Saved(b)};
  record("batch_norm", {x, w, b}, y, std::move(saved),
         [eps, p](const Slots& s, const PullArgs& a) { batch_norm_pull(s, a, eps, p); });
  return y;
}

}  // namespace

Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight,
                  const Tensor& bias, bool training, double momentum, double eps) {
  Profiled scope("batch_norm");
  const char* op = "batch_norm";
  check_channels(input, op);
  Shape shape{input.shape()[1]};
  check_parameter(running_mean, shape, op, "running_mean");
  check_parameter(running_var, shape, op, "running_var");
  check_parameter(weight, shape, op, "weight");
  check_parameter(bias, shape, op, "bias");
  if (!training && !(bool(running_mean) && bool(running_var)))
    fail<ValueError>(op, "without training=True the running statistics are needed", "pass running_mean and running_var",
                     input);
  Typed t;
  int nd = input.ndim();
  Tensor w, b;
  if (!training || input.size() == 0) {
    t = typed(input, weight, bias, op);
    w = per_channel(t.w, nd), b = per_channel(t.b, nd);
  }
  if (!training) {
    Tensor scale = times(rsqrt(cast(per_channel(detach(running_var), nd), t.x.dtype()) + Tensor(eps)), w);
    Tensor centre = cast(per_channel(detach(running_mean), nd), t.x.dtype());
    return cast(plus((t.x - centre) * scale, b), t.result);
  }
  int64_t count = shape[0] ? input.size() / shape[0] : 0;
  if (input.size() && count == 1)
    fail<ShapeError>(op, "training needs more than one value per channel", "use a larger batch, or training=False",
                     input);
  if (input.size() == 0) return cast(plus(times(t.x, w), b), t.result);
  for (const Tensor& r : {running_mean, running_var})
    if (r) check_writable(r, op);
  BatchStatistics found;
  Tensor x = as_float(input);
  Tensor y = batch_norm_train(x, weight, bias, eps, found, precision_of(x, weight, bias, op));
  update_running(running_mean, found.mean, momentum);
  if (running_var) update_running(running_var, detach(found.var) * Tensor(double(count) / double(count - 1)), momentum);
  return y;
}

}  // namespace pb
