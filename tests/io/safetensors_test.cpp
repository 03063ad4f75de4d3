#include "mixtral/io/safetensors.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "mixtral/core/error.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::error_of;
using test::names;
using test::TempDir;

namespace {

// A file image: the length of `header`, the header, then `n_data` bytes 0, 1, 2, ...
std::string image(const std::string& header, std::size_t n_data) {
  std::string out;
  for (std::size_t i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i) & 0xff);
  out += header;
  for (std::size_t i = 0; i < n_data; ++i) out += static_cast<char>(i);
  return out;
}

SafetensorsFile parse(const std::string& bytes) { return {std::as_bytes(std::span(bytes)), "x.safetensors"}; }

void check_equal(const SafetensorsFile& got, const SafetensorsFile& want) {
  REQUIRE(got.entries().size() == want.entries().size());
  CHECK(got.metadata() == want.metadata());
  for (const SafetensorsEntry& w : want.entries()) {
    CAPTURE(w.name);
    const SafetensorsEntry& g = got.at(w.name);
    CHECK(g.dtype == w.dtype);
    CHECK(g.shape == w.shape);
    CHECK(std::ranges::equal(g.data, w.data));
  }
}

}  // namespace

TEST_CASE("a header's tensors are found by name, in any order, at odd offsets") {
  const std::string bytes = image(R"({"b":{"shape":[2,1],"data_offsets":[1,9],"dtype":"F32"},"__metadata__":{"k":"v"},)"
                                  R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}} )",
                                  9);
  const SafetensorsFile file = parse(bytes);
  CHECK(file.entries().size() == 2);
  CHECK(file.metadata() == SafetensorsMetadata{{"k", "v"}});
  CHECK(file.at("a").shape.empty());
  CHECK(file.at("a").data.size() == 1);
  CHECK(file.at("b").shape == std::vector<Index>{2, 1});
  CHECK(static_cast<int>(file.at("b").data[0]) == 1);
  CHECK(file.find("c") == nullptr);
  CHECK(names(error_of([&] { file.at("c"); }), "x.safetensors: no tensor \"c\""));
}

TEST_CASE("every known dtype is read with its size") {
  for (const DTypeInfo& type : kDTypes) {
    if (is_packed(type.dtype)) continue;
    CAPTURE(type.name);
    CHECK(name_of(type.dtype) == type.name);
    const std::string header =
        str(R"({"t":{"dtype":")", type.name, R"(","shape":[3],"data_offsets":[0,)", 3 * type.bytes, "]}}");
    const std::string bytes = image(header, static_cast<std::size_t>(3 * type.bytes));
    CHECK(parse(bytes).at("t").dtype == type.dtype);
  }
}

TEST_CASE("packed types are no dtypes of files") {
  const std::string header = R"({"t":{"dtype":"P4","shape":[0],"data_offsets":[0,0]}})";
  CHECK(names(error_of([&] { parse(image(header, 0)); }), "dtype \"P4\" is unknown"));
}

TEST_CASE("a file without tensors and tensors without elements are legal") {
  CHECK(parse(image("{}", 0)).entries().empty());
  CHECK(parse(image(R"({"__metadata__":{}})", 0)).metadata().empty());
  const std::string bytes = image(
      R"({"z":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},"y":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
      R"("x":{"dtype":"F32","shape":[7,0],"data_offsets":[1,1]}})",
      1);
  CHECK(parse(bytes).at("z").data.empty());
}

TEST_CASE("a broken header is refused with the reason") {
  const auto tensor = [](const std::string& fields) { return "{\"t\":{" + fields + "}}"; };
  const auto shaped = [&](const std::string& shape, const std::string& offsets) {
    return tensor(R"("dtype":"U8","shape":)" + shape + R"(,"data_offsets":)" + offsets);
  };
  std::string ones = "[1";
  for (int i = 0; i < 32; ++i) ones += ",1";
  ones += "]";
  const struct {
    std::string header;
    std::size_t n_data;
    const char* reason;
  } cases[] = {
      {std::string("{}\0\0", 4), 0, "header: byte 2 is NUL"},
      {std::string("{}\0x", 4), 0, "header: byte 2 is NUL"},
      {"", 0, "header does not begin with '{'"},
      {" {}", 0, "header does not begin with '{'"},
      {"[]", 0, "header does not begin with '{'"},
      {"{} x", 0, "header: parse error"},
      {"{\"\xff\":1}", 0, "invalid string: ill-formed UTF-8"},
      {"{\"t\":1}", 0, "tensor \"t\": unexpected 1"},
      {"{\"t\":[]}", 0, "tensor \"t\": unexpected an array"},
      {"{\"t\":null}", 0, "tensor \"t\": unexpected null"},
      {"{\"t\":true}", 0, "tensor \"t\": unexpected true"},
      {"{\"t\":\"s\"}", 0, "tensor \"t\": unexpected \"s\""},
      {"{\"t\":{}}", 0, "tensor \"t\": no dtype"},
      {tensor(R"("dtype":"U8")"), 0, "tensor \"t\": no shape"},
      {tensor(R"("dtype":"U8","shape":[1])"), 1, "tensor \"t\": no data_offsets"},
      {tensor(R"("dtype":"U8","dtype":"U8")"), 0, "tensor \"t\": key \"dtype\" is given twice"},
      {tensor(R"("strides":[1])"), 0, "tensor \"t\": no dtype"},
      {tensor(R"("x":)" + std::string(65, '[') + std::string(65, ']')), 0,
       "tensor \"t\": nested deeper than 64 levels"},
      {tensor(R"("x":NaN)"), 0, "tensor \"t\": parse error"},
      {tensor(R"("dtype":"F4")"), 0, "tensor \"t\": dtype: dtype \"F4\" is unknown"},
      {tensor(R"("dtype":8)"), 0, "tensor \"t\": dtype: unexpected 8"},
      {shaped("[1.0]", "[0,1]"), 1, "tensor \"t\": shape: unexpected 1.0"},
      {shaped("[-1]", "[0,1]"), 1, "tensor \"t\": shape: unexpected -1"},
      {shaped("[[1]]", "[0,1]"), 1, "tensor \"t\": shape: unexpected an array"},
      {shaped("[9223372036854775808]", "[0,1]"), 1, "shape: unexpected 9223372036854775808"},
      {shaped("[4611686018427387904,4,0]", "[0,0]"), 0, "shape [4611686018427387904, 4, 0] overflows"},
      {shaped(ones, "[0,1]"), 1, "shape has more than 32 dimensions"},
      {shaped("[1]", "[0]"), 1, "data_offsets has 1 numbers, expected 2"},
      {shaped("[1]", "[0,1,1]"), 1, "data_offsets: unexpected 1"},
      {shaped("[1]", "[1,0]"), 1, "data_offsets [1, 0] end before they begin"},
      {shaped("[2]", "[0,2]"), 1, "data_offsets [0, 2] are past the end of 1 bytes"},
      {shaped("[2]", "[0,1]"), 1, "U8 [2] needs 2 bytes, data_offsets [0, 1] hold 1"},
      {shaped("[1]", "[1,2]"), 2, "tensor \"t\": begins at 1, leaving a hole after 0"},
      {shaped("[1]", "[0,1]"), 3, "2 bytes after the last tensor"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "tensor \"b\": begins at 1, inside data that ends at 2"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "tensor \"a\" is given twice"},
      {R"({"__metadata__":{"k":"1","k":"2"}})", 0, "__metadata__: key \"k\" is given twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ is given twice"},
      {R"({"__metadata__":{"k":1}})", 0, "header: unexpected 1"},
      {R"({"__metadata__":"k"})", 0, "header: unexpected \"k\""},
  };
  for (const auto& c : cases) {
    CAPTURE(c.header);
    const std::string bytes = image(c.header, c.n_data);
    const Error error = error_of([&] { parse(bytes); });
    CHECK((error.code() == ErrorCode::kBadFormat || error.code() == ErrorCode::kUnsupported));
    CHECK(names(error, "x.safetensors: "));
    CHECK(names(error, c.reason));
  }
}

TEST_CASE("fields that nobody reads and metadata that are null are passed over, as the format's own reader does") {
  const std::string bytes = image(
      R"({"__metadata__":null,"t":{"x":{"dtype":"F32","shape":[[1],{}],"y":null},"dtype":"U8","f":-1.5,"i":-3,"u":7,)"
      R"("s":"t","n":null,"b":true,"shape":[1],"e":{},"x":[],"data_offsets":[0,1],"last":[{"a":[]}]}}  )",
      1);
  const SafetensorsFile file = parse(bytes);
  CHECK(file.metadata().empty());
  CHECK(file.entries().size() == 1);
  CHECK(file.at("t").dtype == DType::kU8);
  CHECK(file.at("t").shape == std::vector<Index>{1});
  const std::string deep = R"({"t":{"x":)" + std::string(64, '[') + std::string(64, ']') +
                           R"(,"dtype":"U8","shape":[0],"data_offsets":[0,0]}})";
  CHECK_NOTHROW(parse(image(deep, 0)));
}

TEST_CASE("other formats are known by their first bytes, and an empty file for what it is") {
  const struct {
    std::string bytes;
    ErrorCode code;
    const char* reason;
  } cases[] = {
      {"", ErrorCode::kBadFormat, "x.safetensors: is empty"},
      {"GGUF", ErrorCode::kBadFormat, "x.safetensors: 4 bytes, expected at least the 8"},
      {"GGUF\3\1\1\1", ErrorCode::kUnsupported, "it looks like a GGUF file, which is not supported yet"},
      {"PK\3\4\1\1\1\1", ErrorCode::kUnsupported, "it looks like a zip archive"},
      {"\x80\2\x8a\n\1\1\1\1", ErrorCode::kUnsupported, "it looks like a pickle"},
      {"{\"dim\": 1}", ErrorCode::kBadFormat, "it looks like JSON"},
      {"<html></html>", ErrorCode::kBadFormat, "it looks like a web page"},
      {"12345678", ErrorCode::kBadFormat, "header length 4050765991979987505 is above the format's limit"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.bytes);
    const Error error = error_of([&] { parse(c.bytes); });
    CHECK(error.code() == c.code);
    CHECK(names(error, c.reason));
  }
}

TEST_CASE("a file cut anywhere is refused") {
  const std::string whole = image(R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4);
  CHECK(parse(whole).entries().size() == 1);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    const std::string cut = whole.substr(0, n);
    CHECK(error_of([&] { parse(cut); }).code() == ErrorCode::kBadFormat);
  }
}

TEST_CASE("a stranger's long name is cut in the message") {
  const std::string bytes = image("{\"" + std::string(100000, 'n') + "\":1}", 0);
  CHECK(std::string(error_of([&] { parse(bytes); }).what()).size() < 300);
}

TEST_CASE("golden files survive being read, written and read again") {
  const TempDir dir;
  for (const std::string name :
       {"cases/A_T7.safetensors", "blocks/moe_block.safetensors", "sampling/sampling.safetensors",
        "models/B/model-00001-of-00002.safetensors", "malformed_hf/legal_mixed_dtypes/model.safetensors"}) {
    CAPTURE(name);
    const SafetensorsFile file(test::golden_dir() / name);
    CHECK(!file.entries().empty());
    write_safetensors(dir / "copy", file.entries(), file.metadata());
    check_equal(SafetensorsFile(dir / "copy"), file);
  }
}

TEST_CASE("written tensors are aligned to their elements, whatever their order and names") {
  const TempDir dir;
  const std::vector<double> wide = {1, 2};
  const std::vector<std::uint8_t> narrow = {1, 2, 3};
  const std::vector<SafetensorsEntry> tensors = {
      {"n\"\\\n\u00e9", DType::kU8, {3}, std::as_bytes(std::span(narrow))},
      {"empty", DType::kF32, {0, 4}, {}},
      {"wide", DType::kF64, {2, 1}, std::as_bytes(std::span(wide))},
  };
  write_safetensors(dir / "f", tensors, {{"format", "pt"}, {"a\"b", "c"}});
  const std::string bytes = read_file(dir / "f", 1 << 20);
  const SafetensorsFile file = parse(bytes);
  CHECK(file.metadata() == SafetensorsMetadata{{"format", "pt"}, {"a\"b", "c"}});
  for (const SafetensorsEntry& tensor : tensors) {
    CHECK(std::ranges::equal(file.at(tensor.name).data, tensor.data));
    const auto offset = reinterpret_cast<const char*>(file.at(tensor.name).data.data()) - bytes.data();
    CHECK(offset % size_of(tensor.dtype) == 0);
  }
}

TEST_CASE("the writer refuses what no reader could take, and leaves the old file") {
  const TempDir dir;
  test::write_text(dir / "f", "old");
  const std::vector<std::byte> four(4);
  const SafetensorsEntry good{"t", DType::kF32, {1}, four};
  const struct {
    std::vector<SafetensorsEntry> tensors;
    const char* reason;
  } cases[] = {
      {{good, good}, "t is given twice"},
      {{{"t", DType::kF32, {2}, four}}, "t: 4 bytes for F32 [2]"},
      {{{"t", DType::kF32, {-1}, four}}, "t: 4 bytes for F32 [-1]"},
      {{{"__metadata__", DType::kF32, {1}, four}}, "cannot be named __metadata__"},
      {{{"\xff", DType::kF32, {1}, four}}, "is not UTF-8"},
  };
  for (const auto& c : cases) {
    const Error error = error_of([&] { write_safetensors(dir / "f", c.tensors); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(names(error, c.reason));
  }
  CHECK(names(error_of([&] {
                write_safetensors(dir / "f", {&good, 1}, {{"k", "1"}, {"k", "2"}});
              }),
              "k is given twice"));
  CHECK(read_file(dir / "f", 100) == "old");
}
