// Parses with the JSON library into our own values.
#include "core/json.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/float_environment.hpp"

namespace mixtral::json {
namespace {

// Behind the string that begins at `begin`.
std::size_t end_of_string(std::string_view text, std::size_t begin) {
  std::size_t i = begin + 1;
  while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
  return std::min(i + 1, text.size());
}

// A number for which Python's json has a word and JSON has none.
struct Word {
  std::string_view text;
  double value;
};
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Word kWords[] = {
    {"NaN", std::numeric_limits<double>::quiet_NaN()}, {"Infinity", kInfinity}, {"-Infinity", -kInfinity}};

// Finds those words. The parser gets strings of the same lengths in their places, quotes for their first and last
// letters, so that the places in its messages stay right. Which strings these are is told by counting.
class NonFiniteWords {
 public:
  explicit NonFiniteWords(std::string_view text) : text_(text) {
    std::size_t n_strings = 0;
    for (std::size_t i = text.find_first_of(kBegins); i < text.size(); i = text.find_first_of(kBegins, i)) {
      if (text[i] == '"') {
        i = end_of_string(text, i);
        ++n_strings;
      } else if (const Word* word = word_at(i)) {
        if (found_.empty()) changed_ = text;
        changed_[i] = changed_[i + word->text.size() - 1] = '"';
        found_.push_back({n_strings++, word});
        i += word->text.size();
      } else {
        ++i;
      }
    }
  }

  std::string_view text() const noexcept { return found_.empty() ? text_ : changed_; }

  // Of the text's next string, keys among them: the word that it stands for, nullptr if it is a string.
  const Word* next_string() noexcept {
    const bool is_word = next_ < found_.size() && found_[next_].string == n_strings_;
    ++n_strings_;
    return is_word ? found_[next_++].word : nullptr;
  }

 private:
  struct Found {
    std::size_t string;  // its number among the strings
    const Word* word;
  };
  static constexpr std::string_view kBegins = "\"NI-";

  const Word* word_at(std::size_t i) const noexcept {
    const Word* word = std::find_if(std::begin(kWords), std::end(kWords),
                                    [&](const Word& w) { return text_.substr(i).starts_with(w.text); });
    return word == std::end(kWords) ? nullptr : word;
  }

  std::string_view text_;
  std::string changed_;
  std::vector<Found> found_;
  std::size_t next_ = 0, n_strings_ = 0;  // of found_, of the strings that the parser has met
};

// Builds the values from the parser's events. The parser itself does not recurse.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view name, NonFiniteWords& words) : name_(name), words_(words) {}

  Value take() { return std::move(root_); }

  bool null() override { return put({nullptr}) != nullptr; }
  bool boolean(bool value) override { return put({value}) != nullptr; }
  bool number_integer(std::int64_t value) override { return put({value}) != nullptr; }
  bool number_unsigned(std::uint64_t value) override {
    if (value <= static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) {
      return put({static_cast<Index>(value)}) != nullptr;
    }
    return put({Real{static_cast<double>(value), str(value)}}) != nullptr;
  }
  bool number_float(double value, const std::string& text) override { return put({Real{value, text}}) != nullptr; }
  bool string(std::string& value) override {
    if (const Word* word = words_.next_string()) return put({Real{word->value, std::string(word->text)}}) != nullptr;
    return put({std::move(value)}) != nullptr;
  }
  bool binary(binary_t&) override { return false; }  // not in text

  bool start_object(std::size_t) override { return open({Object{}}); }
  bool key(std::string& value) override {
    if (const Word* word = words_.next_string())
      fail(ErrorCode::kBadFormat, name_, ": parse error: ", word->text, " in the place of a key");
    std::get<Object>(open_.back()->data).push_back({std::move(value), {}});
    return true;
  }
  bool end_object() override {
    refuse_duplicates(std::get<Object>(open_.back()->data));
    open_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override { return open({Array{}}); }
  bool end_array() override {
    open_.pop_back();
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    fail(ErrorCode::kBadFormat, name_, ": ", parse_error_reason(error.what()));
  }

 private:
  // Pointers in open_ stay valid: a container does not grow while one of its elements is open.
  bool open(Value container) {
    require(open_.size() < kMaxDepth, ErrorCode::kBadFormat, name_, ": nested deeper than ", kMaxDepth, " levels");
    open_.push_back(put(std::move(container)));
    return true;
  }

  Value* put(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (auto* array = std::get_if<Array>(&open_.back()->data)) return &array->emplace_back(std::move(value));
    Value& member = std::get<Object>(open_.back()->data).back().value;
    member = std::move(value);
    return &member;
  }

  void refuse_duplicates(const Object& object) const {
    std::vector<std::string_view> keys(object.size());
    std::transform(object.begin(), object.end(), keys.begin(), [](const Member& m) { return std::string_view(m.key); });
    const std::optional<std::string_view> twice = first_duplicate(std::move(keys));
    if (twice) fail(ErrorCode::kBadFormat, name_, ": key ", quote(*twice), " is given twice");
  }

  std::string_view name_;
  NonFiniteWords& words_;
  Value root_{};
  std::vector<Value*> open_;
};

}  // namespace

Value parse(std::string_view text, std::string_view name) {
  require(!text.empty(), ErrorCode::kBadFormat, name, ": is empty, expected JSON");
  refuse_nul(text, name);
  NonFiniteWords words(text);
  Builder builder(name, words);
  const FloatScope floats;  // strtod() rounds as its thread does
  nlohmann::json::sax_parse(words.text().begin(), words.text().end(), &builder);
  return builder.take();
}

void refuse_nul(std::string_view text, std::string_view name) {
  const std::size_t at = text.find('\0');
  require(at == text.npos, ErrorCode::kBadFormat, name, ": byte ", at, " is NUL, which JSON does not have");
}

Value parse_file(const std::filesystem::path& path, Index max_bytes) {
  return parse(read_file(path, max_bytes), path.string());
}

std::string quote(std::string_view text) {
  constexpr std::size_t kLongest = 96;
  const std::string cut = text.size() <= kLongest ? std::string(text) : str(text.substr(0, kLongest), "...");
  return nlohmann::json(cut).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string describe(const Value& value) {
  struct Describer {
    std::string operator()(std::nullptr_t) const { return "null"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(Index v) const { return str(v); }
    std::string operator()(const Real& v) const { return v.text.substr(0, 64); }
    std::string operator()(const std::string& v) const { return quote(v); }
    std::string operator()(const Array&) const { return "an array"; }
    std::string operator()(const Object&) const { return "an object"; }
  };
  return std::visit(Describer{}, value.data);
}

std::string dump(const Value& value) {
  struct Dumper {
    std::string operator()(std::nullptr_t) const { return "null"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(Index v) const { return str(v); }
    std::string operator()(const Real& v) const { return v.text; }
    std::string operator()(const std::string& v) const { return nlohmann::json(v).dump(-1, ' ', true); }
    std::string operator()(const Array& v) const {
      std::string out;
      for (const Value& item : v) out += str(out.empty() ? "[" : ",", dump(item));
      return v.empty() ? "[]" : out + "]";
    }
    std::string operator()(const Object& v) const {
      std::vector<const Member*> members;
      for (const Member& member : v) members.push_back(&member);
      std::sort(members.begin(), members.end(), [](const Member* a, const Member* b) { return a->key < b->key; });
      std::string out;
      for (const Member* m : members) out += str(out.empty() ? "{" : ",", (*this)(m->key), ":", dump(m->value));
      return v.empty() ? "{}" : out + "}";
    }
  };
  return std::visit(Dumper{}, value.data);
}

std::string parse_error_reason(std::string_view what) {
  const std::size_t code_end = what.find("] ");
  if (code_end != std::string_view::npos) what.remove_prefix(code_end + 2);
  what = what.substr(0, what.find("; last read"));
  return std::string(what.substr(0, 200));
}

std::optional<std::string_view> first_duplicate(std::vector<std::string_view> names) {
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  return twice == names.end() ? std::nullopt : std::optional(*twice);
}

ObjectReader::ObjectReader(const Value& value, std::string where)
    : object_(value.get<Object>()), where_(std::move(where)) {
  require(object_ != nullptr, ErrorCode::kBadFormat, where_, ": ", describe(value), ", expected an object");
}

const Member* ObjectReader::member(std::string_view key) const noexcept {
  const auto found = std::find_if(object_->begin(), object_->end(), [&](const Member& m) { return m.key == key; });
  return found == object_->end() ? nullptr : &*found;
}

bool ObjectReader::has(std::string_view key) const noexcept { return member(key) != nullptr; }

const Value* ObjectReader::find(std::string_view key) const noexcept {
  const Member* found = member(key);
  return found == nullptr || found->value.get<std::nullptr_t>() != nullptr ? nullptr : &found->value;
}

const Value& ObjectReader::at(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) fail_missing(key);
  return *value;
}

void ObjectReader::fail_member(std::string_view key, const Value& value, std::string_view expected) const {
  fail(ErrorCode::kBadFormat, where_, ": ", key, " is ", describe(value), ", expected ", expected);
}

void ObjectReader::fail_missing(std::string_view key) const {
  fail(ErrorCode::kBadFormat, where_, ": ", key, has(key) ? " is null" : " is missing");
}

Index ObjectReader::integer(std::string_view key, Index least, Index most) const {
  const std::optional<Index> value = optional_integer(key, least, most);
  if (!value) fail_missing(key);
  return *value;
}

std::optional<Index> ObjectReader::optional_integer(std::string_view key, Index least, Index most) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const Index* number = value->get<Index>();
  if (number == nullptr || *number < least || *number > most) {
    fail_member(key, *value, str("an integer from ", least, " to ", most));
  }
  return *number;
}

float ObjectReader::number(std::string_view key, float least, float most) const {
  const std::optional<float> value = optional_number(key, least, most);
  if (!value) fail_missing(key);
  return *value;
}

std::optional<float> ObjectReader::optional_number(std::string_view key, float least, float most) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  const FloatScope floats;
  double number = std::nan("");
  if (const Real* real = value->get<Real>()) number = real->value;
  if (const Index* integer = value->get<Index>()) number = static_cast<double>(*integer);
  const bool in_range = number >= static_cast<double>(least) && number <= static_cast<double>(most);
  if (!in_range) fail_member(key, *value, str("a number from ", least, " to ", most));
  return static_cast<float>(number);
}

bool ObjectReader::boolean(std::string_view key, bool fallback) const {
  const Value* value = find(key);
  if (value == nullptr) return fallback;
  const bool* truth = value->get<bool>();
  if (truth == nullptr) fail_member(key, *value, "true or false");
  return *truth;
}

const std::string* ObjectReader::optional_string(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return nullptr;
  const auto* text = value->get<std::string>();
  if (text == nullptr) fail_member(key, *value, "a string");
  return text;
}

const std::string& ObjectReader::string(std::string_view key) const {
  const std::string* text = optional_string(key);
  if (text == nullptr) fail_missing(key);
  return *text;
}

std::vector<Index> ObjectReader::integer_or_list(std::string_view key, Index least, Index most) const {
  const Value* value = find(key);
  if (value == nullptr) return {};
  const Array* list = value->get<Array>();
  if (list == nullptr) return {integer(key, least, most)};
  std::vector<Index> numbers;
  for (const Value& item : *list) {
    const Index* number = item.get<Index>();
    if (number == nullptr || *number < least || *number > most) {
      fail_member(str(key, "[", numbers.size(), "]"), item, str("an integer from ", least, " to ", most));
    }
    numbers.push_back(*number);
  }
  return numbers;
}

std::optional<ObjectReader> ObjectReader::optional_object(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return std::nullopt;
  return ObjectReader(*value, str(where_, ": ", key));
}

const Array* ObjectReader::optional_array(std::string_view key) const {
  const Value* value = find(key);
  if (value == nullptr) return nullptr;
  const Array* array = value->get<Array>();
  if (array == nullptr) fail_member(key, *value, "an array");
  return array;
}

const Object& ObjectReader::object(std::string_view key) const {
  const Object* object = at(key).get<Object>();
  if (object == nullptr) fail_member(key, at(key), "an object");
  return *object;
}

void ObjectReader::require_known(std::span<const std::string_view> known) const {
  for (const Member& member : *object_) {
    const bool harmless = member.value.get<std::nullptr_t>() != nullptr ||
                          std::find(known.begin(), known.end(), member.key) != known.end();
    require(harmless, ErrorCode::kUnsupported, where_, ": ", quote(member.key), " is ", describe(member.value),
            ", which is not supported");
  }
}

}  // namespace mixtral::json
