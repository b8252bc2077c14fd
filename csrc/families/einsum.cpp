// einsum: each subscript letter becomes a number, operands are contracted in pairs by matmul, all by recorded ops.
#include <algorithm>
#include <map>

#include "families/linear.h"
#include "families/map.h"
#include "families/reduce.h"
#include "families/view.h"
#include "tensor/profile.h"
#include "value/tensor_value.h"

namespace pb {

namespace {

using Labels = std::vector<int>;
constexpr int kEllipsis = 1000;  // kEllipsis + i: the i-th axis from the right under "..."

struct Term {
  Tensor t;
  Labels labels;
};

bool has(const Labels& l, int x) { return std::find(l.begin(), l.end(), x) != l.end(); }

[[noreturn]] void bad(std::string_view text, const std::string& rule, const std::string& help) {
  fail<ValueError>("einsum", rule + " in '" + std::string(text) + "'", help);
}

// Letters of one term; -1 stands for the ellipsis.
Labels letters(std::string_view term, std::string_view all) {
  Labels l;
  for (size_t i = 0; i < term.size(); i++) {
    char c = term[i];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      l.push_back(c);
    } else if (term.substr(i, 3) == "..." && !has(l, -1)) {
      l.push_back(-1);
      i += 2;
    } else {
      bad(all, std::string("unexpected '") + c + "'", "use letters, one '...' per operand, ',' and one '->'");
    }
  }
  return l;
}

struct Subscripts {
  std::vector<Labels> in;
  Labels out;
  bool explicit_out = false;
};
Subscripts parse(std::string_view text) {
  std::string s;
  for (char c : text)
    if (c != ' ') s.push_back(c);
  Subscripts r;
  size_t arrow = s.find("->"), end = arrow == std::string::npos ? s.size() : arrow;
  for (size_t at = 0;;) {
    size_t comma = s.find(',', at);
    if (comma > end) comma = end;
    r.in.push_back(letters(std::string_view(s).substr(at, comma - at), text));
    if (comma == end) break;
    at = comma + 1;
  }
  if (arrow != std::string::npos) {
    r.out = letters(std::string_view(s).substr(arrow + 2), text);
    r.explicit_out = true;
  }
  return r;
}

// Replaces -1 by as many numbered axes as `width` leaves.
Labels expand(const Labels& l, int width) {
  Labels r;
  for (int x : l) {
    if (x != -1)
      r.push_back(x);
    else
      for (int i = width - 1; i >= 0; i--) r.push_back(kEllipsis + i);
  }
  return r;
}

// A label that occurs twice keeps the diagonal: one axis whose stride is the sum.
Term diagonal(const Term& term) {
  Labels l;
  Dims target;  // of each axis of the operand
  for (size_t i = 0; i < term.labels.size(); i++) {
    auto at = std::find(l.begin(), l.end(), term.labels[i]);
    target.push_back(at - l.begin());
    if (at == l.end()) l.push_back(term.labels[i]);
  }
  if (l.size() == term.labels.size()) return term;
  auto merge = [&](const Geometry& g) {
    Geometry v{Shape(int(l.size()), -1), Strides(int(l.size())), g.offset};
    for (int i = 0; i < target.size(); i++) {
      int64_t& size = v.shape[int(target[i])];
      if (size >= 0 && size != g.shape[i])
        fail<ShapeError>("einsum", "a repeated letter names axes of different sizes", "a diagonal needs equal sizes",
                         term.t);
      size = g.shape[i];
      v.strides[int(target[i])] += g.strides[i];
    }
    return v;
  };
  return {view(term.t, merge(geometry(term.t)), merge(dense(term.t)), "diagonal"), l};
}

Tensor sum_axes(const Tensor& t, const Dims& axes) { return axes.size() ? cast(sum(t, axes), t.dtype()) : t; }

// Sums the labels for which keep(label) is false.
template <class Keep>
Term sum_others(const Term& term, Keep keep) {
  Dims axes;
  Labels l;
  for (size_t i = 0; i < term.labels.size(); i++)
    if (keep(term.labels[i]))
      l.push_back(term.labels[i]);
    else
      axes.push_back(int64_t(i));
  return {sum_axes(term.t, axes), l};
}

int64_t size_of(const Term& term, int label) {
  return term.t.shape()[int(std::find(term.labels.begin(), term.labels.end(), label) - term.labels.begin())];
}

Tensor ordered(const Term& term, std::initializer_list<const Labels*> groups) {
  Dims order;
  bool same = true;
  for (const Labels* g : groups)
    for (int x : *g) {
      order.push_back(std::find(term.labels.begin(), term.labels.end(), x) - term.labels.begin());
      same = same && order.back() == order.size() - 1;
    }
  return same ? term.t : permute(term.t, order);
}
Tensor shaped(const Tensor& t, const Shape& s) { return t.shape() == s ? t : reshape(t, s); }

template <class Keep>
Term contract(const Term& a, const Term& b, Keep keep) {
  Labels batch, summed, left, right, labels;
  for (int x : a.labels) (!has(b.labels, x) ? left : keep(x) ? batch : summed).push_back(x);
  for (int x : b.labels)
    if (!has(a.labels, x)) right.push_back(x);
  Shape shape, shape_a, shape_b;
  int64_t m = 1, n = 1, k = 1;
  for (int x : batch) shape.push_back(size_of(a, x));
  shape_a = shape_b = shape;
  for (int x : left) shape.push_back(size_of(a, x)), m *= size_of(a, x);
  for (int x : right) shape.push_back(size_of(b, x)), n *= size_of(b, x);
  for (int x : summed) k *= size_of(a, x);
  for (const Labels* l : {&batch, &left, &right}) labels.insert(labels.end(), l->begin(), l->end());
  if (summed.empty()) {  // nothing to sum: an element-wise product
    for (int x : left) shape_a.push_back(size_of(a, x)), shape_b.push_back(1);
    for (int x : right) shape_a.push_back(1), shape_b.push_back(size_of(b, x));
    return {shaped(ordered(a, {&batch, &left}), shape_a) * shaped(ordered(b, {&batch, &right}), shape_b), labels};
  }
  shape_a.push_back(m), shape_a.push_back(k);
  shape_b.push_back(k), shape_b.push_back(n);
  Tensor c = matmul(shaped(ordered(a, {&batch, &left, &summed}), shape_a),
                    shaped(ordered(b, {&batch, &summed, &right}), shape_b));
  return {shaped(c, shape), labels};
}

// The pair whose product adds the fewest elements.
std::pair<size_t, size_t> cheapest(const std::vector<Term>& terms, const Labels& out) {
  std::pair<size_t, size_t> best{0, 1};
  double least = 0;
  for (size_t i = 0; i < terms.size() && terms.size() > 2; i++)
    for (size_t j = i + 1; j < terms.size(); j++) {
      double size = 1;
      auto grow = [&](const Term& from, const Term& other, bool shared) {
        for (int x : from.labels) {
          if (has(other.labels, x) && !shared) continue;
          bool kept = has(out, x);
          for (size_t q = 0; q < terms.size(); q++) kept = kept || (q != i && q != j && has(terms[q].labels, x));
          if (kept) size *= double(size_of(from, x));
        }
      };
      grow(terms[i], terms[j], true);
      grow(terms[j], terms[i], false);
      size -= double(terms[i].t.size()) + double(terms[j].t.size());
      if ((i == 0 && j == 1) || size < least) least = size, best = {i, j};
    }
  return best;
}

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

// Names the axes of operand i. `widest` grows to the number of axes under its ellipsis.
Term name_axes(const Tensor& t, const Labels& names, size_t i, std::string_view text, int& widest) {
  bool dots = has(names, -1);
  int named = int(names.size()) - (dots ? 1 : 0), width = t.ndim() - named;
  if (width < 0 || (width > 0 && !dots))
    fail<ShapeError>("einsum",
                     "term " + std::to_string(i) + " of " + quoted(text) + " names " + std::to_string(named) + " axes",
                     "name every axis, or use '...'", t);
  if (width > widest) widest = width;
  return diagonal({t, expand(names, width)});
}

// The length of every letter; 1 stretches.
std::map<int, int64_t> sizes_of(const std::vector<Term>& terms, std::string_view text) {
  std::map<int, int64_t> sizes;
  for (const Term& term : terms)
    for (size_t d = 0; d < term.labels.size(); d++) {
      int64_t size = term.t.shape()[int(d)];
      int64_t& known = sizes.emplace(term.labels[d], size).first->second;
      if (known == 1) known = size;
      if (known != size && size != 1)
        fail<ShapeError>("einsum",
                         "a letter of " + quoted(text) + " names axes of sizes " + std::to_string(known) + " and " +
                             std::to_string(size),
                         "sizes must agree or be 1", term.t);
    }
  return sizes;
}

Labels output_labels(const Subscripts& s, const std::map<int, int64_t>& sizes, int widest, std::string_view text) {
  if (s.explicit_out) {
    Labels out = expand(s.out, widest);
    for (auto at = out.begin(); at != out.end(); ++at) {
      if (!sizes.count(*at)) bad(text, std::string("output letter '") + char(*at) + "' is in no operand", "drop it");
      if (std::find(out.begin(), at, *at) != at)
        bad(text, "an output letter occurs twice", "name each output axis once");
    }
    return out;
  }
  Labels all, out = expand({-1}, widest);  // the ellipsis, then the letters that occur once, sorted
  for (const Labels& l : s.in) all.insert(all.end(), l.begin(), l.end());
  std::sort(all.begin(), all.end());
  for (int x : all)
    if (x != -1 && std::count(all.begin(), all.end(), x) == 1) out.push_back(x);
  return out;
}

// An axis of size 1 that is longer elsewhere goes: the others give it its length.
Term drop_ones(const Term& term, const std::map<int, int64_t>& sizes) {
  Dims ones;
  Labels l;
  for (size_t d = 0; d < term.labels.size(); d++)
    if (term.t.shape()[int(d)] == 1 && sizes.at(term.labels[d]) != 1)
      ones.push_back(int64_t(d));
    else
      l.push_back(term.labels[d]);
  return ones.size() ? Term{squeeze(term.t, ones), l} : term;
}

}  // namespace

Tensor einsum(std::string_view text, std::span<const Tensor> operands) {
  Profiled scope("einsum");
  Subscripts s = parse(text);
  if (s.in.size() != operands.size())
    bad(text, std::to_string(operands.size()) + " operands for " + std::to_string(s.in.size()) + " terms",
        "give one operand per term between commas");
  DType dtype = result_dtype(operands, "einsum");
  int widest = 0;
  std::vector<Term> terms;
  for (size_t i = 0; i < operands.size(); i++)
    terms.push_back(name_axes(cast(operands[i], dtype), s.in[i], i, text, widest));
  std::map<int, int64_t> sizes = sizes_of(terms, text);
  Labels out = output_labels(s, sizes, widest, text);
  // A letter stays while the output or a term other than i and j has it.
  auto kept = [&](int x, size_t i, size_t j) {
    bool keep = has(out, x);
    for (size_t q = 0; q < terms.size(); q++) keep = keep || (q != i && q != j && has(terms[q].labels, x));
    return keep;
  };
  for (Term& term : terms) term = drop_ones(term, sizes);
  for (size_t i = 0; i < terms.size(); i++) terms[i] = sum_others(terms[i], [&](int x) { return kept(x, i, i); });
  while (terms.size() > 1) {
    auto [i, j] = cheapest(terms, out);
    terms[i] = contract(terms[i], terms[j], [&, i = i, j = j](int x) { return kept(x, i, j); });
    terms.erase(terms.begin() + int64_t(j));
  }
  return ordered(terms[0], {&out});
}

}  // namespace pb
