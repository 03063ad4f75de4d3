#include "mixtral/io/gguf.hpp"

#include <doctest/doctest.h>

#include <cstring>

#include "mixtral/core/file.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "support/error_of.hpp"
#include "support/gguf_bytes.hpp"
#include "support/gguf_parse.hpp"
#include "support/golden.hpp"
#include "support/mutate.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::error_of;
using test::gguf_header;
using test::gguf_key;
using test::names;
using test::put;

namespace {

const std::filesystem::path kDir = test::golden_dir() / "gguf";

GgufFile parsed(const std::string& bytes) { return GgufFile(std::as_bytes(std::span(bytes)), "file"); }

Error refusal(const std::string& bytes) {
  return error_of([&] { (void)parsed(bytes); });
}

}  // namespace

TEST_CASE("the tensors of the golden files are where another reader finds them") {
  for (const std::filesystem::path& dir : {kDir / "models", test::golden_dir() / "gguf_iq/models"}) {
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      if (entry.path().extension() != ".gguf") continue;
      CAPTURE(entry.path().string());
      const GgufFile file(entry.path());
      const test::GgufContents want = test::parse_gguf(entry.path());
      REQUIRE(file.tensors().size() == want.tensors.size());
      for (const test::GgufTensor& tensor : want.tensors) {
        const GgufTensor* got = file.find_tensor(tensor.name);
        REQUIRE(got != nullptr);
        CHECK(static_cast<std::uint32_t>(got->type) == tensor.type);
        CHECK(got->size() == tensor.n_weights());
        CHECK(std::memcmp(got->data.data(), want.data(tensor), got->data.size()) == 0);
      }
    }
  }
}

TEST_CASE("values of every type, and what their readers say of another one") {
  std::string bytes = gguf_header(0, 9);
  bytes += gguf_key("a.u8", GgufType::kU8, std::uint8_t{200});
  bytes += gguf_key("b.i8", GgufType::kI8, std::int8_t{-3});
  bytes += gguf_key("c.u64", GgufType::kU64, ~std::uint64_t{0});
  bytes += gguf_key("d.i64", GgufType::kI64, std::int64_t{-5});
  bytes += gguf_key("e.f32", GgufType::kF32, 1.5f);
  bytes += gguf_key("f.f64", GgufType::kF64, -2.25);
  bytes += gguf_key("g.bool", GgufType::kBool, std::uint8_t{1});
  bytes += gguf_key("h.text", GgufType::kString, std::string("caf\xC3\xA9"));
  std::string list;
  put(list, std::string("i.list"));
  put(list, static_cast<std::uint32_t>(GgufType::kArray));
  put(list, static_cast<std::uint32_t>(GgufType::kString));
  put(list, std::uint64_t{2});
  put(list, std::string("one"));
  put(list, std::string());
  bytes += list;
  const GgufFile file = parsed(bytes);
  CHECK(file.keys().size() == 9);
  CHECK(file.integer("a.u8", 0, 255) == 200);
  CHECK(file.integer("b.i8", -10, 10) == -3);
  CHECK(names(error_of([&] { (void)file.integer("c.u64", 0, 1000); }),
              "c.u64 is 9223372036854775807, expected 0 to 1000"));
  CHECK(file.integer("d.i64", -10, 0) == -5);
  CHECK(file.number("e.f32") == 1.5);
  CHECK(file.number("f.f64") == -2.25);
  CHECK(file.number("d.i64") == -5.0);
  CHECK(file.boolean("g.bool") == true);
  CHECK(file.text("h.text") == "caf\xC3\xA9");
  CHECK(file.texts("i.list") == std::vector<std::string_view>{"one", ""});
  CHECK_FALSE(file.text("nothing").has_value());
  CHECK(names(error_of([&] { (void)file.integer("e.f32", 0, 1); }), "file: e.f32 is of type f32, expected an integer"));
  CHECK(names(error_of([&] { (void)file.text("i.list"); }), "i.list is an array of string, expected a string"));
  CHECK(names(error_of([&] { (void)file.floats("i.list"); }), "expected an array of f32"));
}

TEST_CASE("what is wrong in a header is named with its place and numbers") {
  CHECK(names(refusal(""), "file: the magic at byte 0 has 4 bytes, the file ends after 0"));
  CHECK(names(refusal("GGML" + gguf_header(0, 0).substr(4)), "begins with \"GGML\""));
  CHECK(refusal(gguf_header(0, 0, 1)).code() == ErrorCode::kUnsupported);
  CHECK(names(refusal(gguf_header(0, 0, 3u << 24)), "big-endian"));
  CHECK(names(refusal(gguf_header(~std::uint64_t{0}, 0)), "18446744073709551615 tensors, expected at most 1048576"));
  CHECK(names(refusal(gguf_header(0, std::uint64_t{1} << 60)), "1152921504606846976 keys"));
  CHECK(names(refusal(gguf_header(0, 1) + gguf_key("x", static_cast<GgufType>(13), 0)),
              "\"x\" has type 13, expected 0 to 12"));
  CHECK(names(refusal(gguf_header(0, 1) + gguf_key("x", GgufType::kBool, std::uint8_t{2})),
              "\"x\" is 2, expected 0 or 1"));
  CHECK(names(refusal(gguf_header(0, 2) + gguf_key("x", GgufType::kU8, std::uint8_t{2}) +
                      gguf_key("x", GgufType::kU8, std::uint8_t{2})),
              "key \"x\" comes twice"));
  std::string nested;
  put(nested, std::string("x"));
  put(nested, static_cast<std::uint32_t>(GgufType::kArray));
  put(nested, static_cast<std::uint32_t>(GgufType::kArray));
  CHECK(names(refusal(gguf_header(0, 1) + nested), "\"x\" is an array of arrays"));
  CHECK(names(refusal(gguf_header(0, 1) + gguf_key("general.alignment", GgufType::kU32, std::uint32_t{48})),
              "power of two"));
}

TEST_CASE("a file that is cut anywhere is refused") {
  const std::string whole = read_file(kDir / "malformed/_base.gguf", 1 << 20);
  const test::TempDir dir;
  for (std::size_t size = 0; size < whole.size(); size += size < 2000 ? 1 : 37) {
    CAPTURE(size);
    test::write_text(dir / "cut.gguf", whole.substr(0, size));
    CHECK(error_of([&] { (void)load_checkpoint(dir / "cut.gguf"); }).code() == ErrorCode::kBadFormat);
  }
}

TEST_CASE("10000 mutated GGUF files load or are refused") {
  const test::TempDir dir;
  std::mt19937 random(18);
  int refused = 0, loaded = 0;
  for (const char* name : {"malformed/_base.gguf", "malformed/old_style_f32.gguf", "models/VT_q8_0.gguf"}) {
    const std::string whole = read_file(kDir / name, 1 << 20);
    const std::string head = whole.substr(0, std::min<std::size_t>(whole.size(), 16000));
    for (int i = 0; i < (whole.size() == head.size() ? 4500 : 1000); ++i) {
      test::write_text(dir / "m.gguf", test::mutate(head, random) + whole.substr(head.size()));
      try {
        (void)load_checkpoint(dir / "m.gguf");
        ++loaded;
      } catch (const Error& error) {
        const ErrorCode code = error.code();
        CHECK((code == ErrorCode::kBadFormat || code == ErrorCode::kUnsupported || code == ErrorCode::kNotFound));
        ++refused;
      }
    }
  }
  MESSAGE(refused, " refused, ", loaded, " loaded");
  CHECK(refused > 3000);
  CHECK(loaded > 100);
}
