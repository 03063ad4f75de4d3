// The types with scales and minima, and the choice among all. Before each function stands what a block is made of, in
// the order of its bytes, and what a weight is; q is its code. Scales are made first and codes multiplied then, as the
// reference does: no product is ever rounded, but the sign of zero depends on the order.
#include "io/ggml_blocks.hpp"

#include "io/ggml_block_parts.hpp"

namespace mixtral {
namespace ggml {
namespace {

// Numbers as they are.
void float32(Bytes block, float* out) noexcept { std::memcpy(out, block, sizeof *out); }
void float16(Bytes block, float* out) noexcept { *out = read_f16(block); }
void bfloat16(Bytes block, float* out) noexcept { *out = to_float(bf16{read<std::uint16_t>(block)}); }

// d, 16 bytes of codes: (q - 8) d
void q4_0(Bytes block, float* out) noexcept {
  Code codes[32];
  split_nibbles<16>(block + 2, codes);
  for (Code& q : codes) q = static_cast<Code>(q - 8);
  scaled<32>(read_f16(block), codes, out);
}

// d, m, 16 bytes of codes: q d + m
void q4_1(Bytes block, float* out) noexcept {
  Code codes[32];
  split_nibbles<16>(block + 4, codes);
  scaled_minus<32>(read_f16(block), -read_f16(block + 2), codes, out);
}

// 32 codes of five bits: 4 bytes with the fifth bits, 16 with the others.
void split_five_bits(Bytes bytes, Code* codes) noexcept {
  split_nibbles<16>(bytes + 4, codes);
  for (Index i = 0; i < 4; ++i) {
    const std::uint64_t fifth = kMasks[bytes[i]] & 0x1010101010101010u;
    std::uint64_t eight;
    std::memcpy(&eight, codes + 8 * i, sizeof eight);
    eight |= fifth;
    std::memcpy(codes + 8 * i, &eight, sizeof eight);
  }
}

// d, fifth bits, codes: (q - 16) d
void q5_0(Bytes block, float* out) noexcept {
  Code codes[32];
  split_five_bits(block + 2, codes);
  for (Code& q : codes) q = static_cast<Code>(q - 16);
  scaled<32>(read_f16(block), codes, out);
}

// d, m, fifth bits, codes: q d + m
void q5_1(Bytes block, float* out) noexcept {
  Code codes[32];
  split_five_bits(block + 4, codes);
  scaled_minus<32>(read_f16(block), -read_f16(block + 2), codes, out);
}

// d, 32 codes: q d
void q8_0(Bytes block, float* out) noexcept {
  Code codes[32];
  std::memcpy(codes, block + 2, sizeof codes);
  scaled<32>(read_f16(block), codes, out);
}

// 256 codes of two bits in 64 bytes. Byte i of the first 32 has codes i, i + 32, i + 64 and i + 96, the lowest bits
// first; the other bytes have the codes from 128 on.
void split_two_bits(Bytes bytes, Code* codes) noexcept {
  for (Index half = 0; half < 2; ++half, bytes += 32, codes += 128) {
    for (Index i = 0; i < 32; ++i) {
      codes[i] = static_cast<Code>(bytes[i] & 3);
      codes[i + 32] = static_cast<Code>(bytes[i] >> 2 & 3);
      codes[i + 64] = static_cast<Code>(bytes[i] >> 4 & 3);
      codes[i + 96] = static_cast<Code>(bytes[i] >> 6);
    }
  }
}

// Eight runs of 32 codes, one bit for each code: bit k of byte i is that of code i in run k. Adds `value` where it is
// set. (A bit is asked for, not shifted down: that compares bytes, where shifts would widen them.)
void add_bits(Bytes bytes, Code value, Code* codes) noexcept {
  for (Index run = 0; run < 8; ++run, codes += 32) {
    const auto bit = static_cast<std::uint8_t>(1u << run);
    for (Index i = 0; i < 32; ++i) codes[i] = static_cast<Code>(codes[i] + ((bytes[i] & bit) != 0 ? value : Code{0}));
  }
}

// 16 bytes of scales s and m, four bits each, the codes, d, dmin: d s q - dmin m; s and m are those of 16 weights
void q2_k(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  split_two_bits(block + 16, codes);
  const float d = read_f16(block + 80), dmin = read_f16(block + 82);
  float scales[16], minima[16];
  for (Index g = 0; g < 16; ++g) {
    scales[g] = d * static_cast<float>(block[g] & 15);
    minima[g] = dmin * static_cast<float>(block[g] >> 4);
  }
  for (Index g = 0; g < 16; ++g) scaled_minus<16>(scales[g], minima[g], codes + 16 * g, out + 16 * g);
}

// Scale g of 16, six bits: the low four as sixteen halves of eight bytes, the high two in four more bytes.
int q3_k_scale(Bytes scales, Index g) noexcept {
  const std::uint32_t low = nibble(scales[g % 8], g / 8);
  const std::uint32_t high = static_cast<std::uint32_t>(scales[8 + g % 4]) >> 2 * (g / 4) & 3;
  return static_cast<int>(low | high << 4);
}

// 32 bytes with the third bits, the codes' lower two, 12 bytes of scales s, d: d (s - 32) (q - 4)
void q3_k(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  split_two_bits(block + 32, codes);
  add_bits(block, 4, codes);
  for (Code& q : codes) q = static_cast<Code>(q - 4);
  const float d = read_f16(block + 108);
  for (Index g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(q3_k_scale(block + 96, g) - 32);
    scaled<16>(scale, codes + 16 * g, out + 16 * g);
  }
}

// Q4_K and Q5_K begin with d, dmin and the scales: d s q - dmin m; s and m are those of 32 weights
void scale_runs(Bytes block, const Code* codes, float* out) noexcept {
  const float d = read_f16(block), dmin = read_f16(block + 2);
  for (Index run = 0; run < 8; ++run) {
    const auto [s, m] = scale_and_min(block + 4, run);
    scaled_minus<32>(d * static_cast<float>(s), dmin * static_cast<float>(m), codes + 32 * run, out + 32 * run);
  }
}

// d, dmin, scales, codes: 32 bytes for every two runs of 32
void q4_k(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  for (Index pair = 0; pair < 4; ++pair) split_nibbles<32>(block + 16 + 32 * pair, codes + 64 * pair);
  scale_runs(block, codes, out);
}

// d, dmin, scales, 32 bytes with the fifth bits, codes as in Q4_K
void q5_k(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  for (Index pair = 0; pair < 4; ++pair) split_nibbles<32>(block + 48 + 32 * pair, codes + 64 * pair);
  add_bits(block + 16, 16, codes);
  scale_runs(block, codes, out);
}

// 128 codes of six bits, less 32. Of their low four, 64 bytes hold the first 64 codes in their low halves and the
// others in their high halves; of the high two, byte i of 32 has those of codes i, i + 32, i + 64 and i + 96.
void split_six_bits(Bytes low, Bytes high, Code* codes) noexcept {
  for (Index i = 0; i < 32; ++i) {
    const int a = low[i], b = low[i + 32], top = high[i];
    codes[i] = static_cast<Code>((a & 15) + (top & 3) * 16 - 32);
    codes[i + 32] = static_cast<Code>((b & 15) + (top >> 2 & 3) * 16 - 32);
    codes[i + 64] = static_cast<Code>((a >> 4) + (top >> 4 & 3) * 16 - 32);
    codes[i + 96] = static_cast<Code>((b >> 4) + (top >> 6) * 16 - 32);
  }
}

// 128 bytes of low bits, 64 of high bits, 16 signed scales s, d: d s (q - 32); s is that of 16 weights
void q6_k(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  split_six_bits(block, block + 128, codes);
  split_six_bits(block + 64, block + 160, codes + 128);
  const float d = read_f16(block + 208);
  for (Index g = 0; g < 16; ++g) {
    const float s = static_cast<float>(static_cast<std::int8_t>(block[192 + g]));
    scaled<16>(d * s, codes + 16 * g, out + 16 * g);
  }
}

template <GgmlType kType, void (*kDecode)(Bytes, float*) noexcept>
void decode(Bytes blocks, Index n_weights, float* out) noexcept {
  constexpr GgmlTypeInfo kInfo = info_of(kType);
  for (; n_weights > 0; n_weights -= kInfo.block_weights) {
    kDecode(blocks, out);
    blocks += kInfo.block_bytes;
    out += kInfo.block_weights;
  }
}

}  // namespace
}  // namespace ggml

void dequantize(GgmlType type, const std::byte* blocks, Index n_weights, float* out) noexcept {
  using enum GgmlType;
  const auto* const b = reinterpret_cast<ggml::Bytes>(blocks);
  switch (type) {
    case kF32: return ggml::decode<kF32, ggml::float32>(b, n_weights, out);
    case kF16: return ggml::decode<kF16, ggml::float16>(b, n_weights, out);
    case kQ4_0: return ggml::decode<kQ4_0, ggml::q4_0>(b, n_weights, out);
    case kQ4_1: return ggml::decode<kQ4_1, ggml::q4_1>(b, n_weights, out);
    case kQ5_0: return ggml::decode<kQ5_0, ggml::q5_0>(b, n_weights, out);
    case kQ5_1: return ggml::decode<kQ5_1, ggml::q5_1>(b, n_weights, out);
    case kQ8_0: return ggml::decode<kQ8_0, ggml::q8_0>(b, n_weights, out);
    case kQ2_K: return ggml::decode<kQ2_K, ggml::q2_k>(b, n_weights, out);
    case kQ3_K: return ggml::decode<kQ3_K, ggml::q3_k>(b, n_weights, out);
    case kQ4_K: return ggml::decode<kQ4_K, ggml::q4_k>(b, n_weights, out);
    case kQ5_K: return ggml::decode<kQ5_K, ggml::q5_k>(b, n_weights, out);
    case kQ6_K: return ggml::decode<kQ6_K, ggml::q6_k>(b, n_weights, out);
    case kIQ2_XXS: return ggml::decode<kIQ2_XXS, ggml::iq2_xxs>(b, n_weights, out);
    case kIQ2_XS: return ggml::decode<kIQ2_XS, ggml::iq2_xs>(b, n_weights, out);
    case kIQ3_XXS: return ggml::decode<kIQ3_XXS, ggml::iq3_xxs>(b, n_weights, out);
    case kIQ1_S: return ggml::decode<kIQ1_S, ggml::iq1_s>(b, n_weights, out);
    case kIQ4_NL: return ggml::decode<kIQ4_NL, ggml::iq4_nl>(b, n_weights, out);
    case kIQ3_S: return ggml::decode<kIQ3_S, ggml::iq3_s>(b, n_weights, out);
    case kIQ2_S: return ggml::decode<kIQ2_S, ggml::iq2_s>(b, n_weights, out);
    case kIQ4_XS: return ggml::decode<kIQ4_XS, ggml::iq4_xs>(b, n_weights, out);
    case kIQ1_M: return ggml::decode<kIQ1_M, ggml::iq1_m>(b, n_weights, out);
    case kBF16: return ggml::decode<kBF16, ggml::bfloat16>(b, n_weights, out);
  }
}

}  // namespace mixtral
