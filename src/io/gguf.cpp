#include "mixtral/io/gguf.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "core/json.hpp"
#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

constexpr std::uint64_t kMaxKeys = 1 << 16, kMaxTensors = 1 << 20, kMaxName = 65535, kMaxDims = 4;

struct TypeInfo {
  std::string_view name;
  std::size_t bytes;  // 0: a string or an array
};
constexpr TypeInfo kTypes[] = {{"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
                               {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

constexpr const TypeInfo& info_of(GgufType type) noexcept { return kTypes[static_cast<std::uint32_t>(type)]; }

template <class T>
T load(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Takes what it is asked for from the front of the bytes that are left.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& name) : rest_(bytes), size_(bytes.size()), name_(name) {}

  std::size_t left() const noexcept { return rest_.size(); }
  std::size_t at() const noexcept { return size_ - rest_.size(); }

  std::span<const std::byte> take(std::uint64_t n, std::string_view what, std::string_view of = {}) {
    require(n <= rest_.size(), ErrorCode::kBadFormat, name_, ": ", what, of.empty() ? "" : " of ",
            of.empty() ? std::string() : json::quote(of), " at byte ", at(), " has ", n, " bytes, the file ends after ",
            rest_.size());
    const auto taken = rest_.first(static_cast<std::size_t>(n));
    rest_ = rest_.subspan(static_cast<std::size_t>(n));
    return taken;
  }
  template <class T>
  T number(std::string_view what, std::string_view of = {}) {
    return load<T>(take(sizeof(T), what, of).data());
  }
  std::string_view string(std::string_view what, std::uint64_t most, std::string_view of = {}) {
    const auto size = number<std::uint64_t>(str("the length of ", what), of);
    require(size <= most, ErrorCode::kBadFormat, name_, ": ", what, " at byte ", at(), " has ", size,
            " bytes, expected at most ", most);
    const auto bytes = take(size, what, of);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> rest_;
  std::size_t size_;
  const std::string& name_;
};

constexpr std::uint64_t kAnyLength = std::numeric_limits<std::uint64_t>::max();

GgufType read_type(Reader& in, std::string_view key, const std::string& where) {
  const auto type = in.number<std::uint32_t>("the type", key);
  require(type < std::size(kTypes), ErrorCode::kBadFormat, where, ": ", json::quote(key), " has type ", type,
          ", expected 0 to ", std::size(kTypes) - 1);
  return static_cast<GgufType>(type);
}

// `count` elements, checked: strings by walking over them, before that by the least that they take.
void read_elements(Reader& in, GgufKey& key, std::uint64_t count, const std::string& where) {
  const std::size_t each = info_of(key.element).bytes, least = each > 0 ? each : sizeof(std::uint64_t);
  require(count <= in.left() / least, ErrorCode::kBadFormat, where, ": ", json::quote(key.name), " has ", count,
          " elements of type ", name_of(key.element), ", the file ends after ", in.left(), " bytes");
  key.count = static_cast<Index>(count);
  if (each > 0) {
    key.bytes = in.take(count * each, "the value", key.name);
  } else {
    Reader walk = in;
    for (std::uint64_t i = 0; i < count; ++i) (void)walk.string("a string", kAnyLength, key.name);
    key.bytes = in.take(walk.at() - in.at(), "the value", key.name);
  }
  if (key.element != GgufType::kBool) return;
  for (const std::byte b : key.bytes) {
    require(b <= std::byte{1}, ErrorCode::kBadFormat, where, ": ", json::quote(key.name), " is ", static_cast<int>(b),
            ", expected 0 or 1");
  }
}

GgufKey read_key(Reader& in, const std::string& where) {
  GgufKey key;
  key.name = in.string("a key", kMaxName);
  key.type = key.element = read_type(in, key.name, where);
  std::uint64_t count = 1;
  if (key.type == GgufType::kArray) {
    key.element = read_type(in, key.name, where);
    require(key.element != GgufType::kArray, ErrorCode::kBadFormat, where, ": ", json::quote(key.name),
            " is an array of arrays");
    count = in.number<std::uint64_t>("the count", key.name);
  }
  read_elements(in, key, count, where);
  return key;
}

// A tensor whose data are still to be found.
struct TensorHead {
  GgufTensor tensor;
  std::uint64_t offset = 0, bytes = 0;
};

TensorHead read_tensor(Reader& in, const std::string& where) {
  TensorHead head;
  GgufTensor& tensor = head.tensor;
  tensor.name = in.string("a tensor's name", kMaxName);
  const std::string quoted = json::quote(tensor.name);
  const auto n_dims = in.number<std::uint32_t>("the dimensions", tensor.name);
  require(n_dims >= 1 && n_dims <= kMaxDims, ErrorCode::kBadFormat, where, ": tensor ", quoted, " has ", n_dims,
          " dimensions, expected 1 to ", kMaxDims);
  std::uint64_t elements = 1;
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<Index>::max()) / 16;
  for (std::uint32_t i = 0; i < n_dims; ++i) {
    const auto dim = in.number<std::uint64_t>("a dimension", tensor.name);
    require(dim >= 1 && dim <= kMost / elements, ErrorCode::kBadFormat, where, ": tensor ", quoted, ": dimension ", i,
            " is ", dim, dim == 0 ? ", expected at least 1" : ": its size is more than any file's");
    elements *= dim;
    tensor.shape.push_back(static_cast<Index>(dim));
  }
  const auto type = in.number<std::uint32_t>("the type", tensor.name);
  const GgmlTypeInfo* const info = find_ggml_type(type);
  require(info != nullptr, ErrorCode::kUnsupported, where, ": tensor ", quoted, " has type ", type,
          ", which is not supported");
  tensor.type = info->type;
  const Index cols = tensor.shape.front();
  require(cols % info->block_weights == 0, ErrorCode::kBadFormat, where, ": tensor ", quoted, " is ", info->name,
          " with rows of ", cols, " elements, expected whole blocks of ", info->block_weights);
  head.bytes =
      elements / static_cast<std::uint64_t>(info->block_weights) * static_cast<std::uint64_t>(info->block_bytes);
  head.offset = in.number<std::uint64_t>("the offset", tensor.name);
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  const auto first = std::find_if(tensor.shape.begin(), tensor.shape.end() - 1, [](Index dim) { return dim > 1; });
  tensor.shape.erase(tensor.shape.begin(), first);
  return head;
}

// Gives each tensor its data, which must be aligned, inside the file and of nobody else.
void place(std::vector<TensorHead>& heads, std::span<const std::byte> data, Index alignment, const std::string& where) {
  std::sort(heads.begin(), heads.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  std::uint64_t end = 0;
  for (TensorHead& head : heads) {
    const auto& [tensor, offset, bytes] = head;
    require(offset % static_cast<std::uint64_t>(alignment) == 0, ErrorCode::kBadFormat, where, ": tensor ",
            json::quote(tensor.name), " begins at ", offset, ", expected a multiple of ", alignment);
    require(offset >= end, ErrorCode::kBadFormat, where, ": tensor ", json::quote(tensor.name), " begins at ", offset,
            ", inside another one that ends at ", end);
    require(offset <= data.size() && bytes <= data.size() - offset, ErrorCode::kBadFormat, where, ": tensor ",
            json::quote(tensor.name), " has bytes ", offset, " to ", offset, " + ", bytes, ", the file's data end at ",
            data.size());
    end = offset + bytes;
    head.tensor.data = data.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes));
  }
}

// By name; none comes twice.
template <class T>
void sort_by_name(std::vector<T>& all, const char* what, const std::string& where) {
  std::sort(all.begin(), all.end(), [](const T& a, const T& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(all.begin(), all.end(), [](const T& a, const T& b) { return a.name == b.name; });
  require(twice == all.end(), ErrorCode::kBadFormat, where, ": ", what, " ",
          twice == all.end() ? std::string() : json::quote(twice->name), " comes twice");
}

template <class T>
const T* find_by_name(const std::vector<T>& all, std::string_view name) noexcept {
  const auto found = std::lower_bound(all.begin(), all.end(), name,
                                      [](const T& entry, std::string_view wanted) { return entry.name < wanted; });
  return found != all.end() && found->name == name ? &*found : nullptr;
}

bool is_integer(GgufType type) noexcept {
  return type != GgufType::kF32 && type != GgufType::kF64 && type != GgufType::kBool && type != GgufType::kString &&
         type != GgufType::kArray;
}
bool is_number(GgufType type) noexcept { return is_integer(type) || type == GgufType::kF32 || type == GgufType::kF64; }

// Element i of a key of integers; a u64 that no Index can hold becomes its largest.
Index integer_at(const GgufKey& key, Index i) noexcept {
  const std::byte* const at = key.bytes.data() + static_cast<std::size_t>(i) * info_of(key.element).bytes;
  switch (key.element) {
    case GgufType::kU8: return load<std::uint8_t>(at);
    case GgufType::kI8: return load<std::int8_t>(at);
    case GgufType::kU16: return load<std::uint16_t>(at);
    case GgufType::kI16: return load<std::int16_t>(at);
    case GgufType::kU32: return load<std::uint32_t>(at);
    case GgufType::kI32: return load<std::int32_t>(at);
    case GgufType::kI64: return static_cast<Index>(load<std::int64_t>(at));
    default: {
      constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());
      return static_cast<Index>(std::min(load<std::uint64_t>(at), kMost));
    }
  }
}

}  // namespace

std::string_view name_of(GgufType type) noexcept { return info_of(type).name; }

Index GgufTensor::size() const noexcept {
  Index n = 1;
  for (const Index dim : shape) n *= dim;
  return n;
}

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path), name_(path.string()) { read(file_->bytes()); }

GgufFile::GgufFile(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) { read(bytes); }

void GgufFile::read(std::span<const std::byte> bytes) {
  Reader in(bytes, name_);
  const auto magic = in.take(4, "the magic");
  const std::string_view letters(reinterpret_cast<const char*>(magic.data()), 4);
  require(letters == "GGUF", ErrorCode::kBadFormat, name_, ": begins with ", json::quote(letters),
          ", expected \"GGUF\"");
  version_ = in.number<std::uint32_t>("the version");
  require((version_ & 0xffff) != 0, ErrorCode::kUnsupported, name_, ": is big-endian, which is not supported");
  require(version_ == 2 || version_ == 3, ErrorCode::kUnsupported, name_, ": GGUF version ", version_,
          ", expected 2 or 3");
  const auto n_tensors = in.number<std::uint64_t>("the number of tensors");
  const auto n_keys = in.number<std::uint64_t>("the number of keys");
  require(n_tensors <= kMaxTensors, ErrorCode::kBadFormat, name_, ": ", n_tensors, " tensors, expected at most ",
          kMaxTensors);
  require(n_keys <= kMaxKeys, ErrorCode::kBadFormat, name_, ": ", n_keys, " keys, expected at most ", kMaxKeys);

  for (std::uint64_t i = 0; i < n_keys; ++i) keys_.push_back(read_key(in, name_));
  sort_by_name(keys_, "key", name_);
  alignment_ = integer("general.alignment", 1, Index{1} << 24).value_or(32);
  require((alignment_ & (alignment_ - 1)) == 0, ErrorCode::kBadFormat, name_, ": general.alignment is ", alignment_,
          ", expected a power of two");

  std::vector<TensorHead> heads;
  for (std::uint64_t i = 0; i < n_tensors; ++i) heads.push_back(read_tensor(in, name_));
  if (heads.empty()) return;
  const auto step = static_cast<std::size_t>(alignment_), begin = (in.at() + step - 1) / step * step;
  place(heads, bytes.subspan(std::min(begin, bytes.size())), alignment_, name_);
  tensors_.reserve(heads.size());
  for (TensorHead& head : heads) tensors_.push_back(std::move(head.tensor));
  sort_by_name(tensors_, "tensor", name_);
}

const GgufKey* GgufFile::find_key(std::string_view name) const noexcept { return find_by_name(keys_, name); }
const GgufTensor* GgufFile::find_tensor(std::string_view name) const noexcept { return find_by_name(tensors_, name); }

// The key if it is there, and of such a type.
const GgufKey* GgufFile::expect(std::string_view name, bool array, std::string_view what,
                                bool (*fits)(GgufType)) const {
  const GgufKey* const key = find_key(name);
  if (key == nullptr) return nullptr;
  const bool is_array = key->type == GgufType::kArray;
  require(is_array == array && fits(key->element), ErrorCode::kBadFormat, name_, ": ", name, " is ",
          is_array ? str("an array of ", name_of(key->element)) : str("of type ", name_of(key->type)), ", expected ",
          what);
  return key;
}

std::optional<Index> GgufFile::integer(std::string_view name, Index least, Index most) const {
  const GgufKey* const key = expect(name, false, "an integer", is_integer);
  if (key == nullptr) return {};
  const Index value = integer_at(*key, 0);
  require(value >= least && value <= most, ErrorCode::kBadFormat, name_, ": ", name, " is ", value, ", expected ",
          least, " to ", most);
  return value;
}

std::optional<double> GgufFile::number(std::string_view name) const {
  const GgufKey* const key = expect(name, false, "a number", is_number);
  if (key == nullptr) return {};
  if (key->type == GgufType::kF32) return load<float>(key->bytes.data());
  if (key->type == GgufType::kF64) return load<double>(key->bytes.data());
  return static_cast<double>(integer_at(*key, 0));
}

std::optional<bool> GgufFile::boolean(std::string_view name) const {
  const GgufKey* const key = expect(name, false, "a truth value", [](GgufType t) { return t == GgufType::kBool; });
  return key == nullptr ? std::optional<bool>() : key->bytes[0] != std::byte{0};
}

std::optional<std::string_view> GgufFile::text(std::string_view name) const {
  const GgufKey* const key = expect(name, false, "a string", [](GgufType t) { return t == GgufType::kString; });
  if (key == nullptr) return {};
  return Reader(key->bytes, name_).string("a string", kAnyLength, name);
}

std::optional<std::vector<std::string_view>> GgufFile::texts(std::string_view name) const {
  const GgufKey* const key =
      expect(name, true, "an array of strings", [](GgufType t) { return t == GgufType::kString; });
  if (key == nullptr) return {};
  std::vector<std::string_view> out;
  out.reserve(static_cast<std::size_t>(key->count));
  Reader in(key->bytes, name_);
  for (Index i = 0; i < key->count; ++i) out.push_back(in.string("a string", kAnyLength, name));
  return out;
}

std::optional<std::vector<float>> GgufFile::floats(std::string_view name) const {
  const GgufKey* const key = expect(name, true, "an array of f32", [](GgufType t) { return t == GgufType::kF32; });
  if (key == nullptr) return {};
  std::vector<float> out(static_cast<std::size_t>(key->count));
  std::memcpy(out.data(), key->bytes.data(), key->bytes.size());
  return out;
}

std::optional<std::vector<Index>> GgufFile::integers(std::string_view name) const {
  const GgufKey* const key = expect(name, true, "an array of integers", is_integer);
  if (key == nullptr) return {};
  std::vector<Index> out;
  out.reserve(static_cast<std::size_t>(key->count));
  for (Index i = 0; i < key->count; ++i) out.push_back(integer_at(*key, i));
  return out;
}

}  // namespace mixtral
