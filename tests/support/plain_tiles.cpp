// The kernels of the matrix unit on plain code in its place. Compiled for AVX-512 VNNI, so nothing else may be in here.
#include <immintrin.h>

#include "kernels/packed_amx.hpp"
#include "kernels/pairs_amx.hpp"
#include "kernels/plain_tiles.hpp"

namespace mixtral::test {

void fill_plain_tiles(KernelTable& table) noexcept {
  table.name = "AMX on plain tiles";
  table.packed_linear_tiles[DType::kP4] = kernels::packed_linear_tiles<DType::kP4, kernels::PlainTiles>;
  table.packed_linear_tiles[DType::kP8] = kernels::packed_linear_tiles<DType::kP8, kernels::PlainTiles>;
  table.matrix_unit_tokens = kernels::kFewestTileTokens;
  table.linear_pairs = kernels::linear_pairs_tiles<kernels::PlainTiles>;
  table.pair_order = simd::PairOrder::kByPair;
}

}  // namespace mixtral::test
