// Reads safetensors files: the header by a state machine over JSON events, the data as views.
#include "mixtral/io/safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "io/safetensors_layout.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/core/tensor.hpp"

namespace mixtral {
namespace {

constexpr std::size_t kMaxDims = 32;  // as many as NumPy knew

// One member of the header, its numbers not yet checked against each other.
struct HeaderEntry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<std::vector<Index>> shape, offsets;
};

// Turns the parser's events straight into entries. The state says which event may come next, so anything
// the format does not have (nesting, fractions, negative numbers) ends the parse where it begins. A field that is none
// of the three is passed over, whatever is in it, and so is __metadata__ that is null: the format's own reader does
// so.
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderParser(const std::string& file, std::vector<HeaderEntry>& entries, SafetensorsMetadata& metadata)
      : file_(file), entries_(entries), metadata_(metadata) {}

  bool start_object(std::size_t) override {
    if (state_ == State::kIgnored) return enter();
    switch (state_) {
      case State::kBegin: return go(State::kNames);
      case State::kEntry: return go(State::kFields);
      case State::kMetadata: return go(State::kMetadataKeys);
      default: unexpected("an object");
    }
  }

  bool key(std::string& name) override {
    if (state_ == State::kIgnored) return true;
    if (state_ == State::kNames) return begin_member(name);
    if (state_ == State::kFields) return begin_field(name);
    metadata_.emplace_back(std::move(name), std::string());
    return go(State::kMetadataText);
  }

  bool end_object() override {
    if (state_ == State::kIgnored) return leave();
    if (state_ == State::kNames) return go(State::kEnd);
    if (state_ == State::kFields) {
      const HeaderEntry& entry = entries_.back();
      require(entry.dtype.has_value(), ErrorCode::kBadFormat, where(), ": no dtype");
      require(entry.shape.has_value(), ErrorCode::kBadFormat, where(), ": no shape");
      require(entry.offsets.has_value(), ErrorCode::kBadFormat, where(), ": no data_offsets");
    }
    return go(State::kNames);
  }

  bool start_array(std::size_t) override {
    if (state_ == State::kIgnored) return enter();
    if (state_ == State::kShape) return go(State::kShapeItems);
    if (state_ == State::kOffsets) return go(State::kOffsetItems);
    unexpected("an array");
  }

  bool end_array() override {
    if (state_ == State::kIgnored) return leave();
    if (state_ == State::kOffsetItems) {
      const std::size_t count = entries_.back().offsets->size();
      require(count == 2, ErrorCode::kBadFormat, where(), ": data_offsets has ", count, " numbers, expected 2");
    }
    return go(State::kFields);
  }

  bool string(std::string& text) override {
    if (state_ == State::kIgnored) return pass();
    if (state_ == State::kDType) return read_dtype(text);
    if (state_ != State::kMetadataText) unexpected(json::quote(text));
    metadata_.back().second = std::move(text);
    return go(State::kMetadataKeys);
  }

  bool number_unsigned(std::uint64_t number) override {
    if (state_ == State::kIgnored) return pass();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) unexpected(str(number));
    if (state_ == State::kShapeItems) {
      require(entries_.back().shape->size() < kMaxDims, ErrorCode::kBadFormat, where(), ": shape has more than ",
              kMaxDims, " dimensions");
      entries_.back().shape->push_back(static_cast<Index>(number));
    } else if (state_ == State::kOffsetItems && entries_.back().offsets->size() < 2) {
      entries_.back().offsets->push_back(static_cast<Index>(number));
    } else {
      unexpected(str(number));
    }
    return true;
  }

  bool number_integer(std::int64_t number) override { return pass_or_refuse(str(number)); }
  bool number_float(double, const std::string& text) override { return pass_or_refuse(text.substr(0, 64)); }
  bool boolean(bool value) override { return pass_or_refuse(value ? "true" : "false"); }
  bool null() override { return state_ == State::kMetadata ? go(State::kNames) : pass_or_refuse("null"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    fail(ErrorCode::kBadFormat, where(), ": ", json::parse_error_reason(error.what()));
  }

 private:
  enum class State {
    kBegin,
    kNames,
    kEntry,
    kFields,
    kDType,
    kShape,
    kShapeItems,
    kOffsets,
    kOffsetItems,
    kIgnored,  // the value of a field that nobody reads, or within it
    kMetadata,
    kMetadataKeys,
    kMetadataText,
    kEnd
  };

  bool go(State state) {
    state_ = state;
    return true;
  }

  // Through a field that is ignored.
  bool enter() {
    if (++depth_ <= json::kMaxDepth) return true;
    fail(ErrorCode::kBadFormat, where(), ": nested deeper than ", json::kMaxDepth, " levels");
  }
  bool leave() {
    --depth_;
    return pass();
  }
  bool pass() { return depth_ > 0 || go(State::kFields); }
  bool pass_or_refuse(const std::string& what) {
    if (state_ != State::kIgnored) unexpected(what);
    return pass();
  }

  bool begin_member(std::string& name) {
    if (name == "__metadata__") {
      require(!has_metadata_, ErrorCode::kBadFormat, file_, ": header: __metadata__ is given twice");
      has_metadata_ = true;
      return go(State::kMetadata);
    }
    entries_.emplace_back().name = std::move(name);
    return go(State::kEntry);
  }

  bool begin_field(const std::string& field) {
    HeaderEntry& entry = entries_.back();
    const auto once = [&](bool is_first) {
      if (!is_first) fail(ErrorCode::kBadFormat, where(), ": key ", json::quote(field), " is given twice");
    };
    if (field == "dtype") {
      once(!entry.dtype);
      return go(State::kDType);
    }
    if (field == "shape") {
      once(!entry.shape);
      entry.shape.emplace();
      return go(State::kShape);
    }
    if (field == "data_offsets") {
      once(!entry.offsets);
      entry.offsets.emplace();
      return go(State::kOffsets);
    }
    return go(State::kIgnored);
  }

  bool read_dtype(const std::string& text) {
    const auto* known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                     [&](const auto& d) { return d.name == text && d.bytes > 0; });
    require(known != std::end(kDTypes), ErrorCode::kUnsupported, where(), ": dtype ", json::quote(text), " is unknown");
    entries_.back().dtype = known->dtype;
    return go(State::kFields);
  }

  // The file and what the parser is at.
  std::string where() const {
    const bool in_entry = state_ >= State::kEntry && state_ <= State::kIgnored;
    std::string place = in_entry ? str(": tensor ", json::quote(entries_.back().name)) : std::string(": header");
    if (state_ == State::kDType) place += ": dtype";
    if (state_ == State::kShape || state_ == State::kShapeItems) place += ": shape";
    if (state_ == State::kOffsets || state_ == State::kOffsetItems) place += ": data_offsets";
    return file_ + place;
  }

  [[noreturn]] void unexpected(const std::string& what) const {
    fail(ErrorCode::kBadFormat, where(), ": unexpected ", what);
  }

  const std::string& file_;
  std::vector<HeaderEntry>& entries_;
  SafetensorsMetadata& metadata_;
  State state_ = State::kBegin;
  std::size_t depth_ = 0;  // of kIgnored
  bool has_metadata_ = false;
};

// What people name *.safetensors, or give in the place of such a file, by its first bytes.
struct Other {
  std::string_view begin, what;
  ErrorCode code;
};
constexpr Other kOthers[] = {
    {"GGUF", "a GGUF file, which is not supported yet", ErrorCode::kUnsupported},
    {"PK\x03\x04", "a zip archive, as PyTorch writes them; it must be converted to safetensors first",
     ErrorCode::kUnsupported},
    {"\x80", "a pickle of Python, which must be converted to safetensors first", ErrorCode::kUnsupported},
    {"{", "JSON; a model of several files is opened by its directory", ErrorCode::kBadFormat},
    {"<", "a web page, or XML", ErrorCode::kBadFormat},
};

// A length that no header has: perhaps no length.
[[noreturn]] void fail_length(std::string_view begin, std::uint64_t length, const std::string& file) {
  for (const Other& other : kOthers) {
    if (begin.starts_with(other.begin)) fail(other.code, file, ": no safetensors file: it looks like ", other.what);
  }
  fail(ErrorCode::kBadFormat, file, ": no safetensors file: header length ", length, " is above the format's limit of ",
       kMaxSafetensorsHeader);
}

// The header's text.
std::string_view header_of(std::span<const std::byte> bytes, const std::string& file) {
  require(!bytes.empty(), ErrorCode::kBadFormat, file, ": is empty, expected a safetensors file");
  require(bytes.size() >= 8, ErrorCode::kBadFormat, file, ": ", bytes.size(),
          " bytes, expected at least the 8 of the header length");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= static_cast<std::uint64_t>(bytes[i]) << (8 * i);
  if (length > std::uint64_t{kMaxSafetensorsHeader})
    fail_length({reinterpret_cast<const char*>(bytes.data()), 8}, length, file);
  require(length <= bytes.size() - 8, ErrorCode::kBadFormat, file, ": header length ", length,
          " is past the end of a file of ", bytes.size(), " bytes");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(length));
  require(text.starts_with('{'), ErrorCode::kBadFormat, file, ": header does not begin with '{'");
  json::refuse_nul(text, file + ": header");
  return text;
}

SafetensorsEntry locate(HeaderEntry&& from, std::span<const std::byte> data, const std::string& file) {
  const Index begin = (*from.offsets)[0], end = (*from.offsets)[1];
  const auto fits = [&](bool ok, const auto&... problem) {
    if (!ok) fail(ErrorCode::kBadFormat, file, ": tensor ", json::quote(from.name), ": ", problem...);
  };
  fits(begin <= end, "data_offsets [", begin, ", ", end, "] end before they begin");
  fits(static_cast<std::size_t>(end) <= data.size(), "data_offsets [", begin, ", ", end, "] are past the end of ",
       data.size(), " bytes of data");
  const std::optional<Index> bytes = byte_count(*from.dtype, *from.shape);
  fits(bytes.has_value(), "shape ", shape_text(*from.shape), " overflows");
  fits(*bytes == end - begin, name_of(*from.dtype), " ", shape_text(*from.shape), " needs ", *bytes,
       " bytes, data_offsets [", begin, ", ", end, "] hold ", end - begin);
  return {std::move(from.name), *from.dtype, std::move(*from.shape),
          data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))};
}

// Every byte of the data belongs to exactly one tensor.
void require_cover(const std::vector<SafetensorsEntry>& entries, std::span<const std::byte> data,
                   const std::string& file) {
  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->data.data(), a->data.size()) < std::pair(b->data.data(), b->data.size());
  });
  std::size_t covered = 0;
  for (const SafetensorsEntry* entry : order) {
    const auto begin = static_cast<std::size_t>(entry->data.data() - data.data());
    require(begin == covered, ErrorCode::kBadFormat, file, ": tensor ", json::quote(entry->name), ": begins at ", begin,
            begin < covered ? ", inside data that ends at " : ", leaving a hole after ", covered);
    covered += entry->data.size();
  }
  require(covered == data.size(), ErrorCode::kBadFormat, file, ": ", data.size() - covered,
          " bytes after the last tensor");
}

template <class Items, class NameOf>
void require_unique(const Items& items, NameOf name_of_item, const std::string& what) {
  std::vector<std::string_view> names;
  for (const auto& item : items) names.push_back(name_of_item(item));
  const std::optional<std::string_view> twice = json::first_duplicate(std::move(names));
  if (twice) fail(ErrorCode::kBadFormat, what, json::quote(*twice), " is given twice");
}

}  // namespace

std::optional<Index> byte_count(DType dtype, std::span<const Index> shape) noexcept {
  Index bytes = size_of(dtype);
  for (const Index dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  }
  return bytes;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path), name_(path.string()) {
  read(file_->bytes());
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  read(bytes);
}

void SafetensorsFile::read(std::span<const std::byte> bytes) {
  header_ = header_of(bytes, name_);
  std::vector<HeaderEntry> raw;
  HeaderParser parser(name_, raw, metadata_);
  const FloatScope floats;  // a number that overflows may trap
  nlohmann::json::sax_parse(header_.begin(), header_.end(), &parser);

  require_unique(
      raw, [](const HeaderEntry& e) { return std::string_view(e.name); }, name_ + ": tensor ");
  require_unique(
      metadata_, [](const auto& m) { return std::string_view(m.first); }, name_ + ": __metadata__: key ");

  const std::span<const std::byte> data = bytes.subspan(8 + header_.size());
  entries_.reserve(raw.size());
  for (HeaderEntry& entry : raw) entries_.push_back(locate(std::move(entry), data, name_));
  require_cover(entries_, data, name_);
  std::sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view tensor) const noexcept {
  const auto entry = std::lower_bound(entries_.begin(), entries_.end(), tensor,
                                      [](const auto& e, std::string_view name) { return e.name < name; });
  return entry != entries_.end() && entry->name == tensor ? &*entry : nullptr;
}

const SafetensorsEntry& SafetensorsFile::at(std::string_view tensor) const {
  const SafetensorsEntry* entry = find(tensor);
  if (entry == nullptr) fail(ErrorCode::kNotFound, name_, ": no tensor ", json::quote(tensor));
  return *entry;
}

}  // namespace mixtral
