#include "mixtral/io/synthetic.hpp"

#include <algorithm>

namespace mixtral {
namespace {

// Steele, Lea and Flood 2014: a bijection that scatters a counter.
std::uint64_t splitmix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// The sum of four random bytes has mean 510 and standard deviation 147.8, and is near a normal distribution.
void fill_row(std::uint64_t seed, Index n, bf16* out) noexcept {
  constexpr float kScale = 0.02f / 147.8f;
  constexpr std::uint64_t kEvenBytes = 0x00ff00ff00ff00ffu;
  for (Index k = 0; k < n; k += 2) {
    const std::uint64_t bits = splitmix(seed + static_cast<std::uint64_t>(k));
    const std::uint64_t pairs = (bits & kEvenBytes) + (bits >> 8 & kEvenBytes);
    const std::uint64_t sums = (pairs + (pairs >> 16)) & 0x0000ffff0000ffffu;
    out[k] = to_bf16(kScale * static_cast<float>(static_cast<std::int32_t>(sums & 0xffff) - 510));
    if (k + 1 < n) out[k + 1] = to_bf16(kScale * static_cast<float>(static_cast<std::int32_t>(sums >> 32) - 510));
  }
}

}  // namespace

ModelConfig synthetic_config(std::string_view name, Index n_layers) {
  require(name == kSyntheticModel, "synthetic model '", name, "', expected ", kSyntheticModel);
  ModelConfig c;
  c.dim = 4096;
  c.hidden_dim = 14336;
  c.n_layers = n_layers == 0 ? 32 : n_layers;
  c.n_heads = 32;
  c.n_kv_heads = 8;
  c.head_dim = 128;
  c.n_experts = 8;
  c.n_experts_per_tok = 2;
  c.vocab_size = 32000;
  c.max_positions = 32768;
  c.validate();
  return c;
}

MatrixView SyntheticWeights::operator()(const TensorSlot& slot, const Shape<2>& shape) {
  std::vector<bf16>& buffer = buffers_[slot.kind == TensorKind::kW2 ? 1 : slot.kind == TensorKind::kW3 ? 2 : 0];
  const auto count = static_cast<std::size_t>(shape.count());
  if (buffer.size() < count) buffer.resize(count);
  if (is_vector(slot.kind)) {
    std::fill_n(buffer.begin(), count, to_bf16(1.0f));
  } else {
    const std::uint64_t matrix =
        splitmix(static_cast<std::uint64_t>(slot.kind) << 48 ^ static_cast<std::uint64_t>(slot.layer + 1) << 24 ^
                 static_cast<std::uint64_t>(slot.expert + 1));
    constexpr Index kRows = 64;  // of one task
    executor_.parallel_for((shape[0] + kRows - 1) / kRows, [&](Index i, int) {
      for (Index r = i * kRows; r < std::min((i + 1) * kRows, shape[0]); ++r) {
        fill_row(splitmix(matrix + static_cast<std::uint64_t>(r)), shape[1], buffer.data() + r * shape[1]);
      }
    });
  }
  return {DType::kBF16, shape[0], shape[1], reinterpret_cast<const std::byte*>(buffer.data())};
}

}  // namespace mixtral
