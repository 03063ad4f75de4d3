// Reads packed files: checks what the header says against the configuration, and lets the weights look at the bytes.
#include "mixtral/io/packed.hpp"

#include <algorithm>
#include <map>
#include <memory>

#include "core/json.hpp"
#include "io/catalog.hpp"
#include "io/checksum.hpp"
#include "io/packed_format.hpp"
#include "mixtral/core/error.hpp"
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
            kFormatKey);
    require(version->second == kPackedVersion, ErrorCode::kUnsupported, file.name(), ": ", kFormatKey, " is ",
            json::quote(version->second), ", expected ", kPackedVersion);
  }

  ModelConfig config() const {
    const auto text = values_.find(kConfigKey);
    require(text != values_.end(), ErrorCode::kBadFormat, file_.name(), ": __metadata__ has no ", kConfigKey);
    const ModelConfig config = parse_config(text->second, str(file_.name(), ": ", kConfigKey));
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

  std::string where(std::string_view tensor) const { return str(file_.name(), ": ", json::quote(tensor)); }

 private:
  const SafetensorsFile& file_;
  std::map<std::string_view, std::string_view> values_;
};

// Only kinds of weights whose kernels read every type may be packed.
bool may_be_packed(TensorKind kind) noexcept {
  using enum TensorKind;
  return kind == kWq || kind == kWk || kind == kWv || kind == kWo || kind == kW1 || kind == kHead;
}

void list_unit(const PackedUnit& unit, DType dtype, const Weights& weights, const std::string& file,
               std::vector<CheckpointTensor>& list) {
  const auto add = [&](const TensorSlot& slot) {
    const MatrixView& w = weights.at(slot);
    list.push_back({slot_name(slot), file, dtype, {w.rows, w.cols}, w.bytes()});
  };
  if (!unit.is_expert()) return add(unit.slot);
  for (const TensorKind kind : {TensorKind::kW1, TensorKind::kW2, TensorKind::kW3}) add(unit.part(kind));
}

}  // namespace

Checkpoint load_packed(const std::filesystem::path& path) {
  const auto file = std::make_shared<const SafetensorsFile>(path);
  const Header header(*file);
  Checkpoint out;
  out.config = header.config();
  out.weights = Weights(out.config);
  std::size_t used = 0;
  for_each_unit(out.config, [&](const PackedUnit& unit) {
    const std::string name = unit.name();
    const SafetensorsEntry* entry = file->find(name);
    require(entry != nullptr, ErrorCode::kBadFormat, header.where(name), " is missing");
    const TensorNote note = header.note(name);
    require(note.dtype && (!is_packed(*note.dtype) || may_be_packed(unit.slot.kind)), ErrorCode::kBadFormat,
            header.where(name), ": format ", note.dtype ? name_of(*note.dtype) : "file");
    const Index bytes = layout_of(unit, *note.dtype).bytes;
    require(entry->dtype == DType::kU8 && static_cast<Index>(entry->data.size()) == bytes, ErrorCode::kBadFormat,
            header.where(name), ": expected ", bytes, " bytes of U8, file has ", entry->data.size(), " of ",
            name_of(entry->dtype));
    place_unit(unit, *note.dtype, entry->data.data(), out.weights);
    list_unit(unit, *note.dtype, out.weights, path.filename().string(), out.tensors);
    ++used;
  });
  for (const SafetensorsEntry& entry : file->entries()) {
    const TensorNote note = header.note(entry.name);
    if (note.dtype) continue;
    require(note.file_bytes <= static_cast<Index>(entry.data.size()), ErrorCode::kBadFormat, header.where(entry.name),
            ": a file of ", note.file_bytes, " bytes in ", entry.data.size());
    require(checksum(entry.data) == note.sum, ErrorCode::kBadFormat, header.where(entry.name),
            ": the checksum is not that of the bytes");
    const auto* text = reinterpret_cast<const char*>(entry.data.data());
    out.files.push_back({entry.name, {text, static_cast<std::size_t>(note.file_bytes)}});
    ++used;
  }
  require(used == file->entries().size(), ErrorCode::kUnsupported, file->name(), ": ", file->entries().size(),
          " tensors, the model has a place for ", used);
  std::sort(out.tensors.begin(), out.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  out.weights.storage = file;
  return out;
}

std::vector<EmbeddedFile> read_embedded_files(const std::filesystem::path& path) { return load_packed(path).files; }

std::vector<std::string> verify_packed(const std::filesystem::path& path,
                                       const std::function<void(Index done, Index all)>& progress) {
  const SafetensorsFile file(path);
  const Header header(file);
  Index all = 0, done = 0;
  for (const SafetensorsEntry& entry : file.entries()) all += static_cast<Index>(entry.data.size());
  std::vector<std::string> bad;
  for (const SafetensorsEntry& entry : file.entries()) {
    if (checksum(entry.data) != header.note(entry.name).sum) bad.push_back(entry.name);
    done += static_cast<Index>(entry.data.size());
    if (progress) progress(done, all);
  }
  return bad;
}

}  // namespace mixtral
