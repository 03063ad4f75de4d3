// The i-quants: a code is an index of a row in a code book, which has eight or four weights at once. Magnitudes come
// from there and signs from the block, so both are put together as bytes before they become floats. Before each
// function stands what a block is made of, in the order of its bytes, and what a weight is; v is its byte, or what K
// has for its code.
//
// All bytes of a block are there before the first becomes a float: eight are written at once and sixteen are read,
// which a CPU cannot do from what is still on its way to the cache.
//
// Every product is exact. The order matters for the sign of zero: a scale may be zero and v is not, so -0 comes from
// (d 0) v where d 0 is a float.
#include "io/ggml_block_parts.hpp"
#include "io/ggml_codebooks.hpp"

namespace mixtral::ggml {
namespace {

// Eight magnitudes, none of them 0, with their signs: x ^ 0xff is -x - 1, and adding one to a byte that is not 0xff
// carries nothing into the next.
void put_signed(std::uint64_t magnitudes, std::uint32_t signs, Code* codes) noexcept {
  const std::uint64_t mask = kMasks[signs];
  const std::uint64_t bytes = (magnitudes ^ mask) + (mask & 0x0101010101010101u);
  std::memcpy(codes, &bytes, sizeof bytes);
}

// IQ2_XXS and IQ3_XXS have 28 bits with four times the signs of eight weights in seven bits, and a scale on top.
std::uint32_t signs_in(std::uint32_t word, Index group) noexcept { return signs_of(word >> 7 * group & 127); }

float quarter_scale(float d, std::uint32_t s) noexcept { return d * (0.5f + static_cast<float>(s)) * 0.25f; }
float odd_scale(float d, std::uint32_t s) noexcept { return d * static_cast<float>(1 + 2 * s); }

// Two rows of four.
std::uint64_t joined(std::uint64_t low, std::uint64_t high) noexcept { return low | high << 32; }

// A scale for each 32 weights.
void scale_runs(const float (&scales)[8], const Code* codes, float* out) noexcept {
  for (Index run = 0; run < 8; ++run) scaled<32>(scales[run], codes + 32 * run, out + 32 * run);
}

// IQ2_XS and IQ2_S have 8 bytes of scales, one in four bits for every 16 weights: d (0.5 + s) 0.25 v
void scale_pairs(float d, Bytes scales, const Code* codes, float* out) noexcept {
  for (Index pair = 0; pair < 16; ++pair) {
    const float scale = quarter_scale(d, nibble(scales[pair / 2], pair));
    scaled<16>(scale, codes + 16 * pair, out + 16 * pair);
  }
}

// IQ1_S and IQ1_M have v of -1, 0 and 1 and e of 1/8, or -1/8 if `minus` is 1 and not 0. With v + 1 from the code book,
// this puts 8 (v + e) + 9 of eight weights, which is never negative, so that no byte takes from the next. (A product,
// since nobody can predict a branch here.)
void put_shifted(std::uint64_t row, std::uint32_t minus, Code* codes) noexcept {
  const std::uint64_t bytes = (row << 3) + (1 - minus) * 0x0202020202020202u;
  std::memcpy(codes, &bytes, sizeof bytes);
}
constexpr Code kShift = 9;
float eighth_scale(float d, std::uint32_t s) noexcept { return d * static_cast<float>(2 * s + 1) * 0.125f; }

void look_up(Code* codes, Index n) noexcept {
  for (Index i = 0; i < n; ++i) codes[i] = kIq4Values[static_cast<std::size_t>(codes[i])];
}

}  // namespace

// d, for each run of 32: 4 bytes of indices, a word of signs and s: d (0.5 + s) 0.25 v
void iq2_xxs(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  float scales[8];
  const float d = read_f16(block);
  for (Index run = 0; run < 8; ++run) {
    const Bytes indices = block + 2 + 8 * run;
    const std::uint32_t word = read_u32(indices + 4);
    for (Index g = 0; g < 4; ++g) put_signed(kIq2XxsRows[indices[g]], signs_in(word, g), codes + 32 * run + 8 * g);
    scales[run] = quarter_scale(d, word >> 28);
  }
  scale_runs(scales, codes, out);
}

// d, for each group of 8: nine bits of index and seven of signs; scales
void iq2_xs(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  for (Index g = 0; g < 32; ++g) {
    const std::uint32_t word = read_u16(block + 2 + 2 * g);
    put_signed(kIq2XsRows[word & 511], signs_of(word >> 9), codes + 8 * g);
  }
  scale_pairs(read_f16(block), block + 66, codes, out);
}

// d, 32 bytes of indices, 32 of signs, 8 with the indices' high two bits, scales
void iq2_s(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  const Bytes indices = block + 2, signs = block + 34, high = block + 66;
  for (Index g = 0; g < 32; ++g) {
    const std::uint32_t top = static_cast<std::uint32_t>(high[g / 4]) >> 2 * (g % 4) & 3;
    put_signed(kIq2SRows[indices[g] | top << 8], signs[g], codes + 8 * g);
  }
  scale_pairs(read_f16(block), block + 74, codes, out);
}

// d, 64 indices of four weights, for each run of 32 a word of signs and s: d (0.5 + s) 0.5 v
void iq3_xxs(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  float scales[8];
  const float d = read_f16(block);
  for (Index run = 0; run < 8; ++run) {
    const std::uint32_t word = read_u32(block + 66 + 4 * run);
    for (Index g = 0; g < 4; ++g) {
      const Bytes two = block + 2 + 8 * run + 2 * g;
      put_signed(joined(kIq3XxsRows[two[0]], kIq3XxsRows[two[1]]), signs_in(word, g), codes + 32 * run + 8 * g);
    }
    scales[run] = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
  }
  scale_runs(scales, codes, out);
}

// d, 64 indices of four weights, 8 bytes with their ninth bits, 32 of signs, 4 of scales: d (1 + 2 s) v; s is that of
// 32 weights
void iq3_s(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  float scales[8];
  const float d = read_f16(block);
  for (Index run = 0; run < 8; ++run) scales[run] = odd_scale(d, nibble(block[106 + run / 2], run));
  for (Index g = 0; g < 32; ++g) {
    const Bytes two = block + 2 + 2 * g;
    const std::uint32_t ninth = static_cast<std::uint32_t>(block[66 + g / 4]) >> 2 * (g % 4);
    const std::uint32_t low = kIq3SRows[two[0] | (ninth & 1) << 8], high = kIq3SRows[two[1] | (ninth >> 1 & 1) << 8];
    put_signed(joined(low, high), block[74 + g], codes + 8 * g);
  }
  scale_runs(scales, codes, out);
}

// d, 32 bytes of indices, for each run of 32 a word of their high three bits, s in three bits and the sign of e:
// d (2 s + 1) (v + e)
void iq1_s(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  float scales[8];
  const float d = read_f16(block);
  for (Index run = 0; run < 8; ++run) {
    const std::uint32_t word = read_u16(block + 34 + 2 * run);
    for (Index g = 0; g < 4; ++g) {
      const std::uint32_t index = block[2 + 4 * run + g] | (word >> 3 * g & 7) << 8;
      put_shifted(kIq1Rows[index], word >> 15, codes + 32 * run + 8 * g);
    }
    scales[run] = eighth_scale(d, word >> 12 & 7);
  }
  for (Code& q : codes) q = static_cast<Code>(q - kShift);
  scale_runs(scales, codes, out);
}

// 32 bytes of indices, 16 with their high three bits and the sign of e, four words with four scales each, in three
// bits, and four bits of d on top: d (2 s + 1) (v + e); s is that of 16 weights, e that of 8
void iq1_m(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  for (Index g = 0; g < 32; ++g) {
    const std::uint32_t high = nibble(block[32 + g / 2], g);
    put_shifted(kIq1Rows[block[g] | (high & 7) << 8], high >> 3, codes + 8 * g);
  }
  for (Code& q : codes) q = static_cast<Code>(q - kShift);
  std::uint32_t d_bits = 0;
  for (Index i = 0; i < 4; ++i) d_bits |= read_u16(block + 48 + 2 * i) >> 12 << 4 * i;
  const float d = to_float(f16{static_cast<std::uint16_t>(d_bits)});
  for (Index pair = 0; pair < 16; ++pair) {
    const std::uint32_t s = read_u16(block + 48 + pair / 4 * 2) >> 3 * (pair % 4) & 7;
    scaled<16>(eighth_scale(d, s), codes + 16 * pair, out + 16 * pair);
  }
}

// d, 16 bytes of codes: d K[q]
void iq4_nl(Bytes block, float* out) noexcept {
  Code codes[32];
  split_nibbles<16>(block + 2, codes);
  look_up(codes, 32);
  scaled<32>(read_f16(block), codes, out);
}

// d, a word with the high two bits of eight scales, 4 bytes with their low four, 16 bytes of codes for each run of 32:
// d (s - 32) K[q]
void iq4_xs(Bytes block, float* out) noexcept {
  Code codes[kSuper];
  for (Index run = 0; run < 8; ++run) split_nibbles<16>(block + 8 + 16 * run, codes + 32 * run);
  look_up(codes, kSuper);
  const float d = read_f16(block);
  const std::uint32_t high = read_u16(block + 2);
  for (Index run = 0; run < 8; ++run) {
    const std::uint32_t s = nibble(block[4 + run / 2], run) | (high >> 2 * run & 3) << 4;
    scaled<32>(d * static_cast<float>(static_cast<int>(s) - 32), codes + 32 * run, out + 32 * run);
  }
}

}  // namespace mixtral::ggml
