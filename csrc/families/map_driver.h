// The Map driver: operands, coalescing, tiles. Works on raw memory; handles stay outside.
#pragma once
#include "cpu/code_table.h"
#include "families/map.h"

namespace pb {

inline constexpr int64_t kTile = 1024, kStreamTile = 128;

// Note [When threads pay]
// A second core gains nothing below about 128 K elements of cheap work; the grain keeps such work on the caller.
inline constexpr int64_t kGrain = 65536;

struct MapOperand {
  char* data = nullptr;
  DType dtype = DType::F32;
  Strides strides;      // in elements, for the iteration shape
  bool single = false;  // one value for all
  bool direct = false;  // contiguous in the compute type: the kernel reads it in place
};

// Codes that a launch writes or reads on the way, while the tile is in L1 (Note [Codes of a derivative]).
struct MapCodes {
  const CodeTable* table = nullptr;
  uint32_t* words = nullptr;
  bool write = false;            // encode in[0] and call fn; else out = in[0] * level, and fn is not called
  const float* level = nullptr;  // read: of the derivative that is wanted
  // write, of a random code: the draws that round, the op whose derivative is rounded, its levels in order.
  const RandomState* round = nullptr;
  const MapOp* derivative = nullptr;
  const float* ascending = nullptr;
  const uint8_t* ranks = nullptr;
};

struct MapPlan {
  MapKernels::Fn fn = nullptr;
  Compute compute = Compute::F32;
  Compute out_compute = Compute::F32;
  bool mask = false;  // the kernel writes bool
  Shape shape;        // coalesced iteration shape
  int64_t size = 0;
  int inputs = 0;
  MapOperand in[5];
  MapOperand out;
  const double* params = nullptr;
  const RandomState* random = nullptr;  // the input after the last one is drawn
  const MapCodes* codes = nullptr;
};

// Elements [first, first + n) of an operand of this shape, from memory to a tile of the compute type and back.
void load_operand(Compute c, const MapOperand& o, const Shape& shape, int64_t first, int64_t n, void* tile);
void store_operand(Compute c, const MapOperand& o, const Shape& shape, int64_t first, int64_t n, const void* tile);
MapOperand operand_of(const Tensor& t, const Shape& shape);
void run_plan(MapPlan& plan);
// The first n elements of a tile become the one value of t, in the compute type.
void spread_value(void* tile, const Tensor& t, Compute compute, int64_t n);

}  // namespace pb
