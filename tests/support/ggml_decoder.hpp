// Blocks of GGML's types decoded one weight at a time, as a description of the format reads: slow, in double, where all
// of it is exact, with the code books of the golden data. Shares nothing with the library but the names of the types.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "mixtral/core/error.hpp"
#include "mixtral/io/ggml_type.hpp"
#include "mixtral/io/safetensors.hpp"

namespace mixtral::test {

class GgmlDecoder {
 public:
  explicit GgmlDecoder(const std::filesystem::path& code_books) : books_(code_books) {}

  // Value `i` of a code book, read row by row.
  int book(std::string_view name, unsigned i) const {
    const SafetensorsEntry& entry = books_.at(name);
    const auto byte = static_cast<std::uint8_t>(entry.data[i]);
    return entry.dtype == DType::kI8 ? static_cast<std::int8_t>(byte) : byte;
  }

  // Weight w of a block.
  float weight(GgmlType type, const std::byte* block, unsigned w) const {
    return static_cast<float>(exact(type, reinterpret_cast<const std::uint8_t*>(block), w));
  }

 private:
  using Bytes = const std::uint8_t*;

  static unsigned u16(Bytes b) { return b[0] + 256u * b[1]; }
  static unsigned u32(Bytes b) { return u16(b) + 65536u * u16(b + 2); }
  static double half(unsigned bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31);
    const double mantissa = bits & 1023;
    const double size = exponent == 31  ? (mantissa != 0 ? std::nan("") : HUGE_VAL)
                        : exponent == 0 ? std::ldexp(mantissa, -24)
                                        : std::ldexp(1024 + mantissa, exponent - 25);
    return bits >> 15 ? -size : size;
  }
  static double half(Bytes b) { return half(u16(b)); }
  static unsigned bit(unsigned word, unsigned i) { return word >> i & 1; }
  static unsigned nib(unsigned byte, unsigned i) { return i % 2 == 0 ? byte % 16 : byte / 16; }
  // Code w of 32 in 16 bytes.
  static int code4(Bytes qs, unsigned w) { return static_cast<int>(nib(qs[w % 16], w / 16)); }
  static int code5(Bytes qh, Bytes qs, unsigned w) { return code4(qs, w) + 16 * static_cast<int>(bit(u32(qh), w)); }
  static double minus_if(unsigned sign, double value) { return sign ? -value : value; }

  double exact(GgmlType type, Bytes b, unsigned w) const {
    switch (type) {
      case GgmlType::kF16: return half(b);
      case GgmlType::kQ4_0: return (code4(b + 2, w) - 8) * half(b);
      case GgmlType::kQ4_1: return code4(b + 4, w) * half(b) + half(b + 2);
      case GgmlType::kQ5_0: return (code5(b + 2, b + 6, w) - 16) * half(b);
      case GgmlType::kQ5_1: return code5(b + 4, b + 8, w) * half(b) + half(b + 2);
      case GgmlType::kQ8_0: return static_cast<std::int8_t>(b[2 + w]) * half(b);
      case GgmlType::kQ2_K: return q2_k(b, w);
      case GgmlType::kQ3_K: return q3_k(b, w);
      case GgmlType::kQ4_K: return q45_k(b, w, code4_k(b + 16, w));
      case GgmlType::kQ5_K: return q45_k(b, w, code4_k(b + 48, w) + 16 * static_cast<int>(bit(b[16 + w % 32], w / 32)));
      case GgmlType::kQ6_K: return q6_k(b, w);
      case GgmlType::kIQ2_XXS: return iq2_xxs(b, w);
      case GgmlType::kIQ2_XS: return iq2_xs(b, w);
      case GgmlType::kIQ2_S: return iq2_s(b, w);
      case GgmlType::kIQ3_XXS: return iq3_xxs(b, w);
      case GgmlType::kIQ3_S: return iq3_s(b, w);
      case GgmlType::kIQ1_S: return iq1_s(b, w);
      case GgmlType::kIQ1_M: return iq1_m(b, w);
      case GgmlType::kIQ4_NL: return half(b) * book("kvalues_iq4nl", static_cast<unsigned>(code4(b + 2, w)));
      case GgmlType::kIQ4_XS: return iq4_xs(b, w);
      default: break;
    }
    fail(ErrorCode::kInternal, "test: no decoder for ", name_of(type));
  }

  static int code2(Bytes qs, unsigned w) { return qs[w / 128 * 32 + w % 32] >> w % 128 / 32 * 2 & 3; }
  static double q2_k(Bytes b, unsigned w) {
    const unsigned scale = b[w / 16];
    return half(b + 80) * (scale & 15) * code2(b + 16, w) - half(b + 82) * (scale >> 4);
  }
  static double q3_k(Bytes b, unsigned w) {
    const unsigned j = w / 16;
    const unsigned low = j < 8 ? b[96 + j] % 16 : b[96 + j - 8] / 16, high = b[104 + j % 4] >> 2 * (j / 4) & 3;
    const int s = static_cast<int>(low + 16 * high) - 32, q = code2(b + 32, w) - (bit(b[w % 32], w / 32) ? 0 : 4);
    return half(b + 108) * s * q;
  }
  static int code4_k(Bytes qs, unsigned w) { return static_cast<int>(nib(qs[w / 64 * 32 + w % 32], w / 32)); }
  static double q45_k(Bytes b, unsigned w, int q) {
    const Bytes sc = b + 4;
    const unsigned j = w / 32;
    const unsigned s = j < 4 ? sc[j] & 63u : (sc[j + 4] & 15u) | (sc[j - 4] >> 6u) << 4;
    const unsigned m = j < 4 ? sc[j + 4] & 63u : sc[j + 4] >> 4u | (sc[j] >> 6u) << 4;
    return half(b) * s * q - half(b + 2) * m;
  }
  static double q6_k(Bytes b, unsigned w) {
    const unsigned part = w / 128, l = w % 32, quarter = w % 128 / 32;
    const unsigned low = nib(b[64 * part + 32 * (quarter % 2) + l], quarter / 2);
    const unsigned high = b[128 + 32 * part + l] >> 2 * quarter & 3;
    const int s = static_cast<std::int8_t>(b[192 + w / 16]), q = static_cast<int>(low + 16 * high) - 32;
    return half(b + 208) * s * q;
  }

  // Value w of the weights that have `index` in a code book of eight, with its sign.
  double signed8(std::string_view name, unsigned index, unsigned signs, unsigned w) const {
    return minus_if(bit(signs, w % 8), book(name, 8 * index + w % 8));
  }
  unsigned seven_signs(unsigned seven_bits) const { return static_cast<unsigned>(book("ksigns", seven_bits & 127)); }
  static double quarter(Bytes b, unsigned s) { return half(b) * (0.5 + s) * 0.25; }

  double iq2_xxs(Bytes b, unsigned w) const {
    const Bytes part = b + 2 + 8 * (w / 32);
    const unsigned a = u32(part + 4), l = w % 32 / 8;
    return quarter(b, a >> 28) * signed8("iq2xxs", part[l], seven_signs(a >> 7 * l), w);
  }
  double iq2_xs(Bytes b, unsigned w) const {
    const unsigned g = w / 8, word = u16(b + 2 + 2 * g), s = nib(b[66 + g / 4], g / 2);
    return quarter(b, s) * signed8("iq2xs", word & 511, seven_signs(word >> 9), w);
  }
  double iq2_s(Bytes b, unsigned w) const {
    const unsigned g = w / 8, index = b[2 + g] | (b[66 + g / 4] >> 2 * (g % 4) & 3u) << 8;
    return quarter(b, nib(b[74 + g / 4], g / 2)) * signed8("iq2s", index, b[34 + g], w);
  }
  double iq3_xxs(Bytes b, unsigned w) const {
    const unsigned a = u32(b + 66 + 4 * (w / 32)), l = w % 32 / 8;
    const double value = book("iq3xxs", 4u * b[2 + w / 4] + w % 4);
    return half(b) * (0.5 + (a >> 28)) * 0.5 * minus_if(bit(seven_signs(a >> 7 * l), w % 8), value);
  }
  double iq3_s(Bytes b, unsigned w) const {
    const unsigned n = w / 4, index = b[2 + n] | bit(b[66 + n / 8], n % 8) << 8, i = w / 32;
    const double value = book("iq3s", 4 * index + w % 4);
    return half(b) * (1 + 2 * nib(b[106 + i / 2], i)) * minus_if(bit(b[74 + w / 8], w % 8), value);
  }
  double iq1_s(Bytes b, unsigned w) const {
    const unsigned i = w / 32, l = w % 32 / 8, word = u16(b + 34 + 2 * i);
    const unsigned index = b[2 + 4 * i + l] | (word >> 3 * l & 7) << 8;
    const double e = bit(word, 15) ? -0.125 : 0.125;
    return half(b) * (2 * (word >> 12 & 7) + 1) * (book("iq1s", 8 * index + w % 8) + e);
  }
  double iq1_m(Bytes b, unsigned w) const {
    unsigned d = 0;
    for (unsigned i = 0; i < 4; ++i) d += (u16(b + 48 + 2 * i) >> 12) << 4 * i;
    const unsigned g = w / 8, n = nib(b[32 + g / 2], g), k = g / 2, index = b[g] | (n & 7) << 8;
    const double e = n & 8 ? -0.125 : 0.125;
    return half(d) * (2 * (u16(b + 48 + 2 * (k / 4)) >> 3 * (k % 4) & 7) + 1) * (book("iq1s", 8 * index + w % 8) + e);
  }
  double iq4_xs(Bytes b, unsigned w) const {
    const unsigned i = w / 32, s = nib(b[4 + i / 2], i) | (u16(b + 2) >> 2 * i & 3) << 4;
    const auto q = static_cast<unsigned>(code4(b + 8 + 16 * i, w % 32));
    return half(b) * (static_cast<int>(s) - 32) * book("kvalues_iq4nl", q);
  }

  SafetensorsFile books_;
};

}  // namespace mixtral::test
