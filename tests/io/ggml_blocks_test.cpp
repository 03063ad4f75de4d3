#include "io/ggml_blocks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "support/compare.hpp"
#include "support/ggml_decoder.hpp"
#include "support/gguf_parse.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"
#include "support/sha256.hpp"

using namespace mixtral;
using nlohmann::json;

namespace {

std::vector<float> floats_of(GgmlType type, const std::byte* blocks, Index n) {
  std::vector<float> out(static_cast<std::size_t>(n));
  dequantize(type, blocks, n, out.data());
  return out;
}
std::vector<float> floats_of(GgmlType type, const std::vector<std::uint8_t>& bytes) {
  const GgmlTypeInfo& info = info_of(type);
  return floats_of(type, reinterpret_cast<const std::byte*>(bytes.data()),
                   static_cast<Index>(bytes.size()) / info.block_bytes * info.block_weights);
}

bool equal_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// The hash that the manifest has of a tensor. It lists experts merged; of one alone, "blk.0.ffn_up.1.weight", the hash
// is among those of the merged tensor.
std::string hash_of(const json& tensors, const std::string& name) {
  if (tensors.contains(name)) return tensors[name].at("sha256_f32");
  const std::size_t end = name.rfind(".weight"), dot = name.rfind('.', end - 1);
  const json& merged = tensors.at(name.substr(0, dot) + "_exps.weight");
  return merged.at("sha256_f32_per_expert").at(std::stoul(name.substr(dot + 1, end - dot - 1)));
}

void check_tensor(const test::GgufContents& file, const test::GgufTensor& tensor, const json& tensors,
                  const SafetensorsFile& expected) {
  CAPTURE(tensor.name);
  const GgmlTypeInfo* const info = find_ggml_type(tensor.type);
  REQUIRE(info != nullptr);
  const std::vector<float> got = floats_of(info->type, file.data(tensor), tensor.n_weights());
  CHECK(test::sha256(std::span(got)) == hash_of(tensors, tensor.name));
  if (expected.find(tensor.name) != nullptr) {
    const std::vector<float> want = test::elements<float>(expected, tensor.name);
    CHECK(want.size() == std::min<std::size_t>(got.size(), 512));
    CHECK(equal_bits(std::span(got).first(want.size()), want));
  }
  if (!tensors.contains(tensor.name) || !tensors[tensor.name].contains("sha256_f32_per_expert")) return;
  const json& hashes = tensors[tensor.name]["sha256_f32_per_expert"];
  const std::size_t size = got.size() / hashes.size();
  for (std::size_t e = 0; e < hashes.size(); ++e) {
    CHECK(test::sha256(std::span(got).subspan(e * size, size)) == hashes[e]);
  }
}

// All models of a golden set; gives back how many tensors it saw of each type, by the type's number.
std::vector<Index> check_set(const std::filesystem::path& dir) {
  std::vector<Index> seen(32);
  const json manifest = test::read_json(dir / "manifest.json");
  for (const json& entry : manifest.at("files")) {
    const std::string name = entry.value("same_numbers_as", entry["files"][0].get<std::string>());
    const auto same = [&](const json& other) { return other["files"][0] == name; };
    const json& numbers = *std::find_if(manifest["files"].begin(), manifest["files"].end(), same);
    const SafetensorsFile expected(dir / numbers.at("expected_tensors").get<std::string>());
    Index count = 0;
    for (const json& part : entry["files"]) {
      CAPTURE(part);
      const test::GgufContents file = test::parse_gguf(dir / part.get<std::string>());
      for (const test::GgufTensor& tensor : file.tensors) {
        check_tensor(file, tensor, numbers.at("tensors"), expected);
        ++seen.at(tensor.type);
        ++count;
      }
    }
    CHECK(count == entry.at("tensor_count"));
  }
  return seen;
}

void check_seen(const std::vector<Index>& seen, std::initializer_list<GgmlType> types) {
  for (const GgmlType type : types) {
    CAPTURE(name_of(type));
    CHECK(seen[static_cast<std::size_t>(type)] > 0);
  }
}

}  // namespace

TEST_CASE("every tensor of the golden models has the reference's bits") {
  using enum GgmlType;
  check_seen(check_set(test::golden_dir() / "gguf"), {kF32, kF16, kQ4_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K});
}

TEST_CASE("every tensor of the golden models with i-quants has the reference's bits") {
  using enum GgmlType;
  check_seen(check_set(test::golden_dir() / "gguf_iq"), {kIQ2_XS, kIQ2_S, kIQ3_XXS, kIQ3_S, kIQ4_NL, kIQ4_XS});
}

TEST_CASE("random blocks of every type are what a slow decoder makes of them, at any alignment") {
  const test::GgmlDecoder decoder(test::golden_dir() / "gguf_iq/iq_codebooks.safetensors");
  test::Random random(21);
  for (const GgmlTypeInfo& info : kGgmlTypes) {
    if (info.type == GgmlType::kF32 || info.type == GgmlType::kBF16) continue;
    CAPTURE(info.name);
    for (const Index n_blocks : {0, 1, 2, 3, 40, 41}) {
      // All bits are random, those of scales too, so some are infinite and NaN, and many subnormal.
      std::vector<std::byte> bytes(static_cast<std::size_t>(1 + n_blocks * info.block_bytes));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.index(0, 255));
      const std::byte* const blocks = bytes.data() + n_blocks % 2;
      const std::vector<float> got = floats_of(info.type, blocks, n_blocks * info.block_weights);
      std::vector<float> want;
      for (Index i = 0; i < n_blocks; ++i) {
        for (unsigned w = 0; w < static_cast<unsigned>(info.block_weights); ++w) {
          want.push_back(decoder.weight(info.type, blocks + i * info.block_bytes, w));
        }
      }
      CHECK(test::same_bits(got, want));
    }
  }
}

TEST_CASE("F32 and BF16 keep every bit, those of NaNs and subnormals too") {
  const std::uint32_t words[] = {0, 0x80000000, 0x00000001, 0x7f800001, 0xffc12345, 0x3f800000};
  std::vector<std::uint8_t> bytes(sizeof words);
  std::memcpy(bytes.data(), words, sizeof words);
  const std::vector<float> wide = floats_of(GgmlType::kF32, bytes);
  CHECK(std::memcmp(wide.data(), words, sizeof words) == 0);

  const std::vector<float> narrow = floats_of(GgmlType::kBF16, {0x80, 0x3f, 0x01, 0x00, 0xc1, 0xff, 0x00, 0x80});
  std::uint32_t got[4];
  std::memcpy(got, narrow.data(), sizeof got);
  CHECK(got[0] == 0x3f800000);
  CHECK(got[1] == 0x00010000);
  CHECK(got[2] == 0xffc10000);
  CHECK(got[3] == 0x80000000);
}

TEST_CASE("Q4_1, computed by hand") {
  std::vector<std::uint8_t> block(20, 0);
  block[1] = 0x38;  // d = 0.5
  block[3] = 0xc0;  // m = -2
  block[4] = 0x3f;
  const std::vector<float> got = floats_of(GgmlType::kQ4_1, block);
  CHECK(got[0] == 15 * 0.5f - 2);
  CHECK(got[16] == 3 * 0.5f - 2);
  CHECK(got[1] == -2);
  CHECK(got[31] == -2);
}

TEST_CASE("Q2_K and Q3_K, computed by hand") {
  std::vector<std::uint8_t> two(84, 0);
  two[9] = 0x35;        // weights 144 to 159: s = 5, m = 3
  two[16 + 48] = 0x08;  // weight 128 + 32 + 16, bits 2 and 3: q = 2; weight 128 + 16: q = 0
  two[16 + 49] = 0x03;  // weight 128 + 17: q = 3
  two[81] = 0x3c;       // d = 1
  two[83] = 0x40;       // dmin = 2
  const std::vector<float> a = floats_of(GgmlType::kQ2_K, two);
  CHECK(a[128 + 16] == -6);
  CHECK(a[128 + 17] == 5 * 3 - 6);
  CHECK(a[128 + 32 + 16] == 0);  // its own s and m are 0
  CHECK(a[0] == 0);

  std::vector<std::uint8_t> three(110, 0);
  three[5] = 0x10;        // weight 128 + 5: the third bit
  three[32 + 37] = 0x02;  // weight 128 + 32 + 5: no, its bits are 2 and 3; weight 128 + 5: q = 2 + 4
  three[96 + 0] = 0x70;   // scale 8: low bits 7
  three[96 + 8] = 0x20;   // scale 8: high bits 2
  three[109] = 0x3c;      // d = 1
  const std::vector<float> b = floats_of(GgmlType::kQ3_K, three);
  CHECK(b[128 + 5] == (7 + 32 - 32) * (6 - 4));
  CHECK(b[128 + 6] == (7 + 32 - 32) * (0 - 4));
  CHECK(b[128 + 32 + 5] == (0 - 32) * (0 - 4));
}

TEST_CASE("zero has the sign that the order of the products gives") {
  std::vector<std::uint8_t> four(18, 0x88);  // all codes 8
  four[0] = 0x00;
  four[1] = 0xbc;  // d = -1
  for (const float x : floats_of(GgmlType::kQ4_0, four)) CHECK((x == 0 && std::signbit(x)));

  std::vector<std::uint8_t> xs(136, 0);  // all codes 0: K = -127
  xs[1] = 0x3c;                          // d = 1
  xs[2] = xs[3] = 0xaa;                  // all scales 32: 32 - 32 = 0
  for (const float x : floats_of(GgmlType::kIQ4_XS, xs)) CHECK((x == 0 && std::signbit(x)));

  const std::vector<std::uint8_t> one(50, 0);  // d = 0; row 0 of the code book has -1 alone
  for (const float x : floats_of(GgmlType::kIQ1_S, one)) CHECK((x == 0 && std::signbit(x)));
}

TEST_CASE("an infinite scale gives what IEEE arithmetic makes of it") {
  std::vector<std::uint8_t> block(34, 0);
  block[1] = 0x7c;  // d: infinity
  block[3] = 1;
  block[4] = 0xff;
  const std::vector<float> got = floats_of(GgmlType::kQ8_0, block);
  CHECK(std::isnan(got[0]));
  CHECK(got[1] == std::numeric_limits<float>::infinity());
  CHECK(got[2] == -std::numeric_limits<float>::infinity());
}

TEST_CASE("hashes of the tests are those of the standard") {
  const auto hash = [](std::string_view text) { return test::sha256(std::span(text.data(), text.size())); };
  CHECK(hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}
