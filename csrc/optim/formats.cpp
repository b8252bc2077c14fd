#include "optim/formats.h"

#include "optim/registry.h"

namespace pb::optim {

int64_t blocks_of(int64_t n) { return (n + kBlock8 - 1) / kBlock8; }

Format format_of(const Slot& s) {
  return s.scale ? Format::Int8 : s.data.dtype() == DType::BF16 ? Format::BF16 : Format::Exact;
}

Format format_for(Format asked, bool exact, const Tensor& p) {
  if (exact || p.dtype() == DType::F64) return Format::Exact;
  return asked == Format::Int8 && p.size() < kSmallest8 ? Format::Exact : asked;
}

int64_t bytes_of(Format f, const Tensor& p) {
  const int64_t n = p.size();
  if (f == Format::Int8) return n + 4 * blocks_of(n);
  return n * (f == Format::BF16 ? 2 : itemsize(compute_dtype(p.dtype())));
}

Slot make_slot(const Tensor& p, Format f) {
  if (f != Format::Exact && on_cuda(p))
    fail<DeviceError>("step", "narrow state formats do not exist on a CUDA device", "leave state= out", p);
  if (f == Format::Int8) return {full_int(p.shape(), 0, DType::U8), zeros({blocks_of(p.size())}, DType::F32)};
  return {zeros(p.shape(), f == Format::BF16 ? DType::BF16 : compute_dtype(p.dtype()), p.device()), Tensor()};
}

Tensor widen(const Slot& s, DType compute) {
  if (s.data.dtype() == compute) return s.data;
  Tensor wide = empty(s.data.shape(), s.scale ? DType::F32 : compute);
  if (s.scale)
    optim_kernels().formats->unpack8(wide.data<float>(), s.data.data<uint8_t>(), s.scale.data<float>(), wide.size());
  else
    copy_into(wide, s.data);
  return s.scale && compute != DType::F32 ? widen({wide, Tensor()}, compute) : wide;
}

Slot convert(const Slot& s, Format f, DType compute) {
  if (format_of(s) == f && (f != Format::Exact || s.data.dtype() == compute)) return s;
  if (on_cuda(s.data)) fail<DeviceError>("step", "narrow state formats do not exist on a CUDA device", "leave state= out", s.data);
  Tensor wide = widen(s, f == Format::Exact ? compute : DType::F32);
  if (f == Format::Exact) return {wide, Tensor()};
  if (f == Format::BF16) {
    Tensor narrow = empty(wide.shape(), DType::BF16);
    copy_into(narrow, wide);
    return {narrow, Tensor()};
  }
  Slot codes{empty(wide.shape(), DType::U8), empty({blocks_of(wide.size())}, DType::F32)};
  optim_kernels().formats->pack8[0](codes.data.data<uint8_t>(), codes.scale.data<float>(), wide.data<float>(), {}, 0,
                                    wide.size());
  return codes;
}

Tensor make_rest(const Tensor& p, Rounding r) {
  if (!is_half(p.dtype()) || r < Rounding::Kahan) return Tensor();
  if (r == Rounding::Kahan) return zeros(p.shape(), p.dtype(), p.device());
  Tensor master = empty(p.shape(), DType::F32, p.device());
  copy_into(master, p);
  return master;
}

// A compensation and a master copy tell the same: one becomes the other.
Tensor convert_rest(const Tensor& p, const Tensor& rest, Rounding r) {
  Tensor fresh = make_rest(p, r);
  if (!fresh || !rest || fresh.dtype() == rest.dtype()) return fresh && rest ? rest : fresh;
  const FormatKernels& f = *optim_kernels().formats;
  const int type = p.dtype() == DType::BF16;
  Tensor value = empty(p.shape(), DType::F32), other = empty(p.shape(), DType::F32);
  copy_into(value, p);
  copy_into(other, rest);
  if (r == Rounding::Master) {
    f.compensate[type](value.data<float>(), other.data<float>(), p.size());
    return value;
  }
  f.refine[type](other.data<float>(), value.data<float>(), p.size());
  f.split[type](other.data<float>(), value.data<float>(), p.size());
  copy_into(fresh, value);
  return fresh;
}

}  // namespace pb::optim
