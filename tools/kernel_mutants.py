"""One-token mutants of the CUDA kernels (tools/mutate_kernels.py): a file below csrc, the unit that is compiled anew,
the text and what becomes of it. The text occurs once in the file."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    file: str
    unit: str
    old: str
    new: str

    @property
    def name(self) -> str:
        return f"{self.file}: {flat(self.old)} -> {flat(self.new) or 'nothing'}"


def flat(text: str) -> str:
    return " ".join(text.split())


#: Which tests see a unit: a file of tests/device and what `-k` picks.
TESTS = {
    "row": ("kernel_sizes", "rows"),
    "channel": ("kernel_sizes", "channels"),
    "reduce": ("kernel_sizes map_rows", "reductions"),
    "matmul": ("kernel_sizes", "products or large_tiles"),
    "conv": ("kernel_sizes", "convolutions"),
    "pool": ("kernel_sizes", "pools"),
    "attention": ("kernel_sizes", "attention"),
    "gather": ("kernel_sizes limits", "gathers or indices"),
    "scatter": ("kernel_sizes", "places or writes"),
    "scan": ("kernel_sizes", "running"),
    "order": ("kernel_sizes", "orders or places"),
    "loss": ("kernel_sizes", "losses"),
    "optim": ("optim_rules kernel_sizes", "rule or norms_of_gradients"),
    "arithmetic": ("map_rows", "add or subtract"),
    "code": ("codes", "codes or masks"),
    "pack": ("codes", "pack"),
    "copy": ("kernel_sizes map_rows", "copies or (layouts and add)"),
    "activations": ("map_rows", "gelu or silu or softplus"),
}

ROW, LANES, TILE = "cuda/row_kernels.h", "cuda/row_lanes.h", "cuda/tile.h"
MAP, DEVICE = "cuda/map_kernels.h", "cuda/device.h"
MATMUL, CONV, POOL, ATTENTION = "cuda/matmul.cu", "cuda/conv.cu", "cuda/pool.cu", "cuda/attention.cu"
GATHER, SCATTER, SCAN, ORDER = "cuda/gather.cu", "cuda/scatter.cu", "cuda/scan.cu", "cuda/order.cu"
REDUCE, CHANNEL, LOSS, OPTIM = "cuda/reduce.cu", "cuda/channel.cu", "cuda/loss.cu", "cuda/optim.cu"
CODE, PACK, COPY = "cuda/code.cu", "cuda/pack.cu", "cuda/copy.cu"

MUTANTS = [
    Mutant(ROW, "row", "return at(k, j) < n; }", "return at(k, j) <= n; }"),
    Mutant(ROW, "row", "(k * kVec + j) * lanes + lane", "(k * kVec + j) * lanes + j"),
    Mutant(ROW, "row", "(k * lanes + lane) * kVec + j", "(k * lanes + k) * kVec + j"),
    Mutant(ROW, "row", "const bool counts = live && p.has(k, j);", "const bool counts = p.has(k, j);"),
    Mutant(
        ROW,
        "row",
        "shared[threadIdx.x] = sum[i][k][j];\n        __syncthreads();",
        "shared[threadIdx.x] = sum[i][k][j];",
    ),
    Mutant(
        ROW,
        "row",
        "__syncthreads();\n        shared[threadIdx.x] = sum[i][k][j];",
        "shared[threadIdx.x] = sum[i][k][j];",
    ),
    Mutant(
        ROW,
        "row",
        "shared[int(threadIdx.x) + w * p.lanes];\n          __syncthreads();",
        "shared[int(threadIdx.x) + w * p.lanes];",
    ),
    Mutant(ROW, "row", "shared[int(threadIdx.x) + w * p.lanes]", "shared[int(threadIdx.x) + w]"),
    Mutant(ROW, "row", "first ? v : sum + v", "first ? v : sum"),
    Mutant(
        ROW, "row", "e.s[Op::given + P] = row_finish<Op, P, float>(s, e);", "e.s[P] = row_finish<Op, P, float>(s, e);"
    ),
    Mutant(LANES, "row", "(lanes < kWarp ? lanes : kWarp) / 2", "(lanes < kWarp ? lanes : kWarp) / 4"),
    Mutant(
        LANES,
        "row",
        "__syncthreads();\n  if (threadIdx.x % kWarp == 0) shared[warp] = v;",
        "if (threadIdx.x % kWarp == 0) shared[warp] = v;",
    ),
    Mutant(LANES, "row", "shared[warp] = v;\n  __syncthreads();", "shared[warp] = v;"),
    Mutant(LANES, "row", "merge(v, shared[first + w])", "merge(v, shared[w])"),
    Mutant(LANES, "row", "return v > a ? v : a;", "return v < a ? v : a;"),
    Mutant(LANES, "loss", "i = head + lane * kVec; i < whole", "i = head + lane; i < whole"),
    Mutant(LANES, "loss", "(kVec - base % kVec) % kVec : n", "base % kVec : n"),
    Mutant(LANES, "loss", "i = whole + lane; i < n", "i = whole + lane; i <= n"),
    Mutant(CHANNEL, "channel", "r = tall; r < a.count; r += kTall", "r = tall; r <= a.count; r += kTall"),
    Mutant(
        CHANNEL,
        "channel",
        "lane[tall][x] = v;\n  __syncthreads();\n  if (tall != 0 || column >= a.n || !out) return;",
        "lane[tall][x] = v;\n  if (tall != 0 || column >= a.n || !out) return;",
    ),
    Mutant(CHANNEL, "channel", "first += g, second += g * d;", "first += g, second += g * x;"),
    Mutant(REDUCE, "reduce", "if (int(threadIdx.x) < w) lane", "if (int(threadIdx.x) <= w) lane"),
    Mutant(REDUCE, "reduce", "lane[threadIdx.x + w]);\n    __syncthreads();", "lane[threadIdx.x + w]);"),
    Mutant(REDUCE, "reduce", "i < end; i += kThreads) v = Op::step", "i <= end; i += kThreads) v = Op::step"),
    Mutant(REDUCE, "reduce", "r < end; r += kTall", "r <= end; r += kTall"),
    Mutant(REDUCE, "reduce", "c < a.chunks; c++", "c <= a.chunks; c++"),
    Mutant(REDUCE, "reduce", "(o * a.n + r) * a.inner + column", "(o * a.n + column) * a.inner + r"),
    Mutant(REDUCE, "reduce", "lane[tall][wide] = v;\n  __syncthreads();", "lane[tall][wide] = v;"),
    Mutant(REDUCE, "reduce", "if (i >= a.outer * a.inner) return;", "if (i > a.outer * a.inner) return;"),
    Mutant(REDUCE, "reduce", "/ a.inner * a.chunks * a.inner + i % a.inner", "/ a.inner * a.chunks * a.inner + i"),
    Mutant(
        TILE,
        "matmul",
        "put<T>(pb_[half ^ 1], sb, eight, b.type);\n    __syncthreads();",
        "put<T>(pb_[half ^ 1], sb, eight, b.type);",
    ),
    Mutant(
        TILE, "matmul", "put<T>(pb_[0], sb, eight, b.type);\n  __syncthreads();", "put<T>(pb_[0], sb, eight, b.type);"
    ),
    Mutant(TILE, "matmul", "k += kDepth, half ^= 1", "k += kDepth, half ^= 0"),
    Mutant(TILE, "matmul", "line0 + s.line + e * s.lines < lines", "line0 + s.line + e * s.lines <= lines"),
    Mutant(TILE, "matmul", "kDepth) - s.step;", "kDepth) + s.step;"),
    Mutant(
        TILE, "matmul", "kAcross * 4 + i / 4 * (T::kLines / 2) + i % 4", "kAcross * 4 + i / 4 * (T::kLines / 4) + i % 4"
    ),
    Mutant(TILE, "matmul", "{t % T::kGroups * 8, t / T::kGroups, 1, 0}", "{t % T::kGroups * 8, t / T::kGroups, 0, 1}"),
    Mutant(MATMUL, "matmul", "if (j + e < n) finish", "if (j + e <= n) finish"),
    Mutant(MATMUL, "matmul", "c.partial[p * all + i]", "c.partial[p + i]"),
    Mutant(MATMUL, "matmul", "part[threadIdx.x / 32] = sum;\n    __syncthreads();", "part[threadIdx.x / 32] = sum;"),
    Mutant(MATMUL, "matmul", "sum[e];\n  __syncthreads();", "sum[e];"),
    Mutant(MATMUL, "matmul", "for (int w = 16; w; w /= 2) v += __shfl", "for (int w = 8; w; w /= 2) v += __shfl"),
    Mutant(MATMUL, "matmul", "r.b += i * g.b_batch[d]", "r.b += i * g.a_batch[d]"),
    Mutant(MATMUL, "matmul", "o.c + row * g.c_row + col, col, g.n, v", "o.c + row * g.n + col, row, g.n, v"),
    Mutant(CONV, "conv", "if (++x < q.kw) return;", "if (++x <= q.kw) return;"),
    Mutant(CONV, "conv", "unsigned(i) < unsigned(n)", "unsigned(i) <= unsigned(n)"),
    Mutant(CONV, "conv", "p.y * q.sh - q.ph, p.x * q.sw - q.pw, there", "p.y * q.sw - q.ph, p.x * q.sw - q.pw, there"),
    Mutant(CONV, "conv", "oy * q.sh == down && ", ""),
    Mutant(CONV, "conv", "t.y * q.kw + t.x;", "t.x * q.kw + t.y;"),
    Mutant(CONV, "conv", "part[p * all + i]", "part[i]"),
    Mutant(CONV, "conv", "if (row >= channels) continue;", "if (row > channels) continue;"),
    Mutant(POOL, "pool", "if (v > best || v != v)", "if (v >= best || v != v)"),
    Mutant(POOL, "pool", "floor_div(i + pad - size, stride) + 1,", "floor_div(i + pad - size, stride),"),
    Mutant(POOL, "pool", "(p.y - (oy * s.sh - s.ph)) * s.kw +", "(p.y - (oy * s.sh - s.ph)) * s.kh +"),
    Mutant(POOL, "pool", "from < 0 ? 0 : from, to > n ? n : to", "from < 0 ? 0 : from, to > n ? to : n"),
    Mutant(ATTENTION, "attention", "(a.causal && key > query)", "(a.causal && key >= query)"),
    Mutant(ATTENTION, "attention", "top, total, o, p);\n    __syncthreads();", "top, total, o, p);"),
    Mutant(
        ATTENTION, "attention", "column_products<S>(p, kv, o);\n    __syncthreads();", "column_products<S>(p, kv, o);"
    ),
    Mutant(ATTENTION, "attention", "total[i] * keep + sum_across(sum)", "total[i] + sum_across(sum)"),
    Mutant(ATTENTION, "attention", "if (row >= rows) continue;", "if (row > rows) continue;"),
    Mutant(ATTENTION, "attention", "e < a.out_width; e += 32", "e <= a.out_width; e += 32"),
    Mutant(
        ATTENTION, "attention", "first + line < rows && col + e < width ?", "first + line < rows && col + e <= width ?"
    ),
    Mutant(
        ATTENTION, "attention", "column_products<S>(p, gy, gv);\n    __syncthreads();", "column_products<S>(p, gy, gv);"
    ),
    Mutant(ATTENTION, "attention", "column_products<S>(p, q, gk);", "column_products<S>(p, gy, gk);"),
    Mutant(GATHER, "gather", "if (lane >= w) sum += up;", "if (lane > w) sum += up;"),
    Mutant(GATHER, "gather", "warps[warp] = sum;\n  __syncthreads();", "warps[warp] = sum;"),
    Mutant(GATHER, "gather", "if (w < warp) first", "if (w <= warp) first"),
    Mutant(GATHER, "gather", "|| v >= a.size", "|| v > a.size"),
    Mutant(GATHER, "gather", "from = o * a.n + a.index[row - o * a.m]", "from = o * a.m + a.index[row - o * a.m]"),
    Mutant(SCATTER, "scatter", "key[j - 1] == place", "key[j - 1] != place"),
    Mutant(SCATTER, "scatter", "a.latest[a.index[j]] == j + 1", "a.latest[a.index[j]] >= j"),
    Mutant(SCATTER, "scatter", "at = (t / (a.m * a.inner) * a.n + at)", "at = (t / (a.m * a.inner) * a.m + at)"),
    Mutant(SCAN, "scan", "if (lane >= w) v = up + v;", "if (lane > w) v = up + v;"),
    Mutant(SCAN, "scan", "shared[warp] = v;\n  __syncthreads();", "shared[warp] = v;"),
    Mutant(
        SCAN,
        "scan",
        "__syncthreads();\n  if (lane == kWarp - 1) shared[warp] = v;",
        "if (lane == kWarp - 1) shared[warp] = v;",
    ),
    Mutant(SCAN, "scan", "c = threadIdx.x; c < chunk;", "c = threadIdx.x; c <= chunk;"),
    Mutant(ORDER, "order", "(ka == kb && ia > ib)", "(ka == kb && ia < ib)"),
    Mutant(
        ORDER,
        "order",
        "index[i + d] = ia;\n        }\n      }\n      __syncthreads();",
        "index[i + d] = ia;\n        }\n      }",
    ),
    Mutant(ORDER, "order", "ascends(first + i, width)", "ascends(i, width)"),
    Mutant(LOSS, "loss", "(i == t ? g - hit : g)", "(i == t ? g : g - hit)"),
    Mutant(LOSS, "loss", "float top = b.top > a.top ? b.top : a.top;", "float top = b.top > a.top ? a.top : b.top;"),
    Mutant(
        OPTIM,
        "optim",
        "whole * kVec + threadIdx.x; i < c.n; i += kThreads) {\n    optim::Slots",
        "whole + threadIdx.x; i < c.n; i += kThreads) {\n    optim::Slots",
    ),
    Mutant(
        OPTIM, "optim", "lane[threadIdx.x] += other;\n    }\n    __syncthreads();", "lane[threadIdx.x] += other;\n    }"
    ),
    Mutant(OPTIM, "optim", "sum += double(g[e]) * double(g[e]);", "sum += double(g[e]);"),
    Mutant(CODE, "code", "word, p) >> lane & 1u) << p", "word, p) >> p & 1u) << p"),
    Mutant(CODE, "code", "a.bits <= 5", "a.bits <= 6"),
    Mutant(
        CODE, "code", "if (lane == 0) a.words[group * a.bits + p] = word;", "if (lane == 0) a.words[group + p] = word;"
    ),
    Mutant(PACK, "pack", "code >> p & 1u", "code >> lane & 1u"),
    Mutant(COPY, "copy", "out += int64_t(r) * a.out_strides[d];", "out += int64_t(r) * a.in_strides[d];"),
    Mutant(MAP, "activations", "i = whole * kVec + thread; i < a.n", "i = whole * kVec + thread; i <= a.n"),
    Mutant(MAP, "activations", "p.at[j] += r * a.in[j].strides[d]", "p.at[j] += r * a.in[0].strides[0]"),
    Mutant(DEVICE, "activations", "part[j / 2] >> 16 * (j % 2)", "part[j / 2] >> 16 * (j / 4)"),
    Mutant("families/op.h", "arithmetic", "return Op::passes[I];", "return 1;"),
    Mutant("families/row_op.h", "row", "return Op::template finish<P, V>(s, e);", "return s;"),
]
