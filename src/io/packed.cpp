// Reads packed files: checks what the header says against the configuration, and lets the weights look at the bytes.
#include "mixtral/io/packed.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <span>

#include "core/json.hpp"
#include "io/catalog.hpp"
#include "io/checksum.hpp"
#include "io/finite.hpp"
#include "io/format.hpp"
#include "io/packed_format.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/io/safetensors.hpp"

namespace mixtral {
namespace {

// The header of a packed file, its notes by name.
class Header {
 public:
  explicit Header(const SafetensorsFile& file) : file_(file) {
    for (const auto& [key, value] : file.metadata()) {
      if (!values_.emplace(key, value).second)
        fail(ErrorCode::kBadFormat, where("__metadata__"), ": ", json::quote(key), " is given twice");
    }
    const auto version = values_.find(kFormatKey);
    require(version != values_.end(), ErrorCode::kBadFormat, file.name(), ": no packed file: __metadata__ has no ",
            kFormatKey, "; other safetensors files are opened by their directory");
    require(version->second == kPackedVersion, ErrorCode::kUnsupported, file.name(), ": ", kFormatKey, " is ",
            json::quote(version->second), ", expected ", kPackedVersion);
  }

  ModelConfig config(Head head) const {
    const auto text = values_.find(kConfigKey);
    require(text != values_.end(), ErrorCode::kBadFormat, file_.name(), ": __metadata__ has no ", kConfigKey);
    ModelConfig config = parse_config(text->second, str(file_.name(), ": ", kConfigKey));
    require(config.has_head || head == Head::kNone, ErrorCode::kNotFound, file_.name(), ": was packed without a head",
            advice_without(TensorKind::kHead));
    config.has_head = head == Head::kRequired;
    double bytes = 0;
    for (const SafetensorsEntry& entry : file_.entries()) bytes += static_cast<double>(entry.data.size());
    require_room(config, file_.name(), bytes, 0.5);  // P4 takes more than four bits
    return config;
  }

  TensorNote note(std::string_view tensor) const {
    const auto text = values_.find(tensor);
    require(text != values_.end(), ErrorCode::kBadFormat, where(tensor), ": __metadata__ says nothing of it");
    const std::optional<TensorNote> note = parse_note(text->second);
    require(note.has_value(), ErrorCode::kBadFormat, where(tensor), ": __metadata__ says ", json::quote(text->second),
            ", expected a format and xxh3:<16 hexadecimal digits>");
    return *note;
  }

  // Whether its own sum is right.
  bool is_whole() const {
    const HeaderSum own = header_sum(std::string(file_.header()));
    return own.place > 0 && file_.header().substr(own.place).starts_with(sum_text(own.sum));
  }

  std::string where(std::string_view tensor) const { return str(file_.name(), ": ", json::quote(tensor)); }

 private:
  const SafetensorsFile& file_;
  std::map<std::string_view, std::string_view> values_;
};

// Sums parts of a file, which it reads: a broken disk is an Error then, in mapped memory it would be a signal.
class FileSummer {
 public:
  FileSummer(const std::filesystem::path& path, const std::function<void(Index, Index)>& progress)
      : file_(path), progress_(progress) {}

  // Any number of threads at once.
  std::uint64_t sum(Index begin, Index bytes) {
    constexpr Index kPiece = Index{1} << 20;  // stays in the cache between reading and summing
    std::vector<std::byte> piece(static_cast<std::size_t>(std::min(kPiece, bytes)));
    Checksum sum;
    for (Index done = 0; done < bytes; done += kPiece) {
      const std::span<std::byte> part =
          std::span(piece).first(static_cast<std::size_t>(std::min(kPiece, bytes - done)));
      sum.add(part.first(file_.read_at(begin + done, part)));
      tell(static_cast<Index>(part.size()));
    }
    return sum.value();
  }

 private:
  void tell(Index bytes) {
    const std::lock_guard lock(mutex_);
    done_ += bytes;
    if (progress_) progress_(done_, file_.size());
  }

  InputFile file_;
  const std::function<void(Index, Index)>& progress_;
  std::mutex mutex_;
  Index done_ = 0;
};

bool may_have(const PackedUnit& unit, const std::optional<UnitTypes>& types) noexcept {
  if (!types || (!unit.is_expert() && types->own != types->w2)) return false;
  return !is_packed(types->own) || may_be_packed(group_of(unit.slot.kind));
}

void list_unit(const PackedUnit& unit, const Weights& weights, const std::string& file,
               std::vector<CheckpointTensor>& list) {
  const auto add = [&](const TensorSlot& slot) {
    const MatrixView& w = weights.at(slot);
    list.push_back({slot_name(slot), file, name_of(w.dtype), {w.rows, w.cols}, w.bytes()});
  };
  if (!unit.is_expert()) return add(unit.slot);
  for (const TensorKind kind : {TensorKind::kW1, TensorKind::kW2, TensorKind::kW3}) add(unit.part(kind));
}

}  // namespace

Checkpoint load_packed(const std::filesystem::path& path, Head head) {
  const auto file = std::make_shared<const SafetensorsFile>(path);
  const Header header(*file);
  Checkpoint out;
  out.model.config = header.config(head);
  out.model.weights = Weights(out.model.config);
  std::size_t used = 0;
  for_each_unit(out.model.config, [&](const PackedUnit& unit) {
    const std::string name = unit.name();
    const SafetensorsEntry* entry = file->find(name);
    require(entry != nullptr, ErrorCode::kBadFormat, header.where(name), " is missing", advice_without(unit.slot.kind));
    const TensorNote note = header.note(name);
    require(may_have(unit, note.types), ErrorCode::kBadFormat, header.where(name), ": format ",
            note.types ? str(name_of(note.types->own), ' ', name_of(note.types->w2)) : "file");
    const Index bytes = layout_of(unit, *note.types).bytes;
    require(entry->dtype == DType::kU8 && static_cast<Index>(entry->data.size()) == bytes, ErrorCode::kBadFormat,
            header.where(name), ": expected ", bytes, " bytes of U8, file has ", entry->data.size(), " of ",
            name_of(entry->dtype));
    place_unit(unit, *note.types, entry->data.data(), out.model.weights);
    list_unit(unit, out.model.weights, path.filename().string(), out.tensors);
    ++used;
  });
  for (const SafetensorsEntry& entry : file->entries()) {
    const TensorNote note = header.note(entry.name);
    if (note.types) continue;
    require(note.file_bytes <= static_cast<Index>(entry.data.size()), ErrorCode::kBadFormat, header.where(entry.name),
            ": a file of ", note.file_bytes, " bytes in ", entry.data.size());
    require(checksum(entry.data) == note.sum, ErrorCode::kBadFormat, header.where(entry.name),
            ": the checksum is not that of the bytes");
    const auto* text = reinterpret_cast<const char*>(entry.data.data());
    out.files.push_back({entry.name, {text, static_cast<std::size_t>(note.file_bytes)}});
    ++used;
  }
  const std::string left_out = slot_name({TensorKind::kHead});
  if (head == Head::kNone && file->find(left_out) != nullptr && header.note(left_out).types) ++used;
  require(used == file->entries().size(), ErrorCode::kUnsupported, file->name(), ": ", file->entries().size(),
          " tensors, the model has a place for ", used);
  require_finite_routing(out.model.weights, out.model.config, file->name());
  std::sort(out.tensors.begin(), out.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  out.model.weights.own(file);
  out.mapped = true;
  return out;
}

const CheckpointFormat kPackedFormat{
    .recognises =
        [](const std::filesystem::path& path) {
          std::error_code ignored;
          return std::filesystem::is_regular_file(path, ignored);
        },
    .load = [](const std::filesystem::path& path,
               const LoadOptions& options) { return load_packed(path, options.head); },
    .files = [](const std::filesystem::path& path) { return load_packed(path, Head::kNone).files; },
    .vocab_size =
        [](const std::filesystem::path& path) { return load_packed(path, Head::kNone).model.config.vocab_size; }};

std::vector<std::string> verify_packed(const std::filesystem::path& path, Executor& executor,
                                       const std::function<void(Index done, Index all)>& progress) {
  const SafetensorsFile file(path);
  const Header header(file);
  std::vector<const SafetensorsEntry*> entries;
  for (const SafetensorsEntry& entry : file.entries()) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(),
            [](const auto* a, const auto* b) { return a->data.data() < b->data.data(); });

  FileSummer summer(path, progress);
  std::vector<char> bad(entries.size());
  executor.parallel_for(static_cast<Index>(entries.size()), [&](Index i, int) {
    const SafetensorsEntry& entry = *entries[static_cast<std::size_t>(i)];
    const std::uint64_t want = header.note(entry.name).sum;
    const Index begin = entry.data.data() - reinterpret_cast<const std::byte*>(file.header().data()) + 8;
    if (summer.sum(begin, static_cast<Index>(entry.data.size())) != want) bad[static_cast<std::size_t>(i)] = 1;
  });
  std::vector<std::string> names;
  if (!header.is_whole()) names.push_back("header");
  for (std::size_t i = 0; i < bad.size(); ++i) {
    if (bad[i] != 0) names.push_back(entries[i]->name);
  }
  return names;
}

}  // namespace mixtral
