// Reads SentencePiece's ModelProto by hand: the few fields that matter of
// https://github.com/google/sentencepiece/blob/v0.1.97/src/sentencepiece_model.proto.
#include <bit>
#include <cmath>

#include "mixtral/core/error.hpp"
#include "mixtral/text/vocabulary_files.hpp"

namespace mixtral {
namespace {

enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Field numbers.
enum Model : std::uint32_t { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3, kDenormalizerSpec = 5 };
enum Piece : std::uint32_t { kText = 1, kScore = 2, kType = 3 };
enum Trainer : std::uint32_t {
  kModelType = 3,
  kWhitespaceAsSuffix = 24,
  kByteFallback = 35,
  kUnkSurface = 44,
  kBosPiece = 46,
  kEosPiece = 47,
};
enum Normalizer : std::uint32_t { kCharsMap = 2, kAddDummyPrefix = 3, kRemoveExtraSpaces = 4, kEscapeSpaces = 5 };

constexpr std::uint64_t kModelTypeBpe = 2;

struct Field {
  std::uint32_t number = 0;
  std::uint32_t wire = 0;
  std::uint64_t value = 0;  // kVarint, kFixed32, kFixed64
  std::string_view bytes;   // kBytes
};

// Walks the fields of one message. No read leaves the message.
class MessageReader {
 public:
  MessageReader(std::string_view bytes, std::string_view source, std::string_view message)
      : rest_(bytes), source_(source), message_(message), size_(bytes.size()) {}

  // False at the end of the message.
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    check(key >> 3 >= 1 && key >> 3 < (1u << 29), "field number ", key >> 3, " is not legal");
    field.number = static_cast<std::uint32_t>(key >> 3);
    field.wire = static_cast<std::uint32_t>(key & 7);
    switch (field.wire) {
      case kVarint: field.value = varint(); break;
      case kFixed64: field.value = little_endian(8); break;
      case kFixed32: field.value = little_endian(4); break;
      case kBytes: field.bytes = take(varint()); break;
      default: check(false, "field ", field.number, " has wire type ", field.wire);
    }
    return true;
  }

  std::string_view bytes(const Field& field) const { return of_type(field, kBytes).bytes; }
  bool boolean(const Field& field) const { return of_type(field, kVarint).value != 0; }
  std::uint64_t number(const Field& field) const { return of_type(field, kVarint).value; }
  float real(const Field& field) const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(of_type(field, kFixed32).value));
  }

 private:
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    require(ok, ErrorCode::kBadFormat, source_, ": ", message_, " at byte ", size_ - rest_.size(), ": ", parts...);
  }

  const Field& of_type(const Field& field, Wire wire) const {
    check(field.wire == wire, "field ", field.number, " has wire type ", field.wire, ", expected ",
          static_cast<std::uint32_t>(wire));
    return field;
  }

  std::string_view take(std::uint64_t n) {
    check(n <= rest_.size(), n, " bytes expected, ", rest_.size(), " left");
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(n));
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail(ErrorCode::kBadFormat, source_, ": ", message_, " at byte ", size_ - rest_.size(),
         ": number of more than 64 bits");
  }

  std::uint64_t little_endian(std::size_t n) {
    std::uint64_t value = 0;
    const std::string_view raw = take(n);
    for (std::size_t i = 0; i < n; ++i) {
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(raw[i])) << (8 * i);
    }
    return value;
  }

  std::string_view rest_, source_, message_;
  std::size_t size_;
};

// Defaults are those of the format's definition.
struct Specs {
  std::uint64_t model_type = 1;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::string bos_piece = "<s>", eos_piece = "</s>";
  bool has_chars_map = false;
  bool add_dummy_prefix = true;
  bool remove_extra_spaces = true;
  bool escape_spaces = true;
};

void read_piece(MessageReader reader, std::string_view source, Vocabulary& v) {
  require(v.size() < Vocabulary::kMaxPieces, ErrorCode::kBadFormat, source, ": more than ", Vocabulary::kMaxPieces,
          " pieces");
  std::string_view text;
  float score = 0;
  std::uint64_t type = 1;
  Field field;
  while (reader.next(field)) {
    if (field.number == Piece::kText) text = reader.bytes(field);
    if (field.number == Piece::kScore) score = reader.real(field);
    if (field.number == Piece::kType) type = reader.number(field);
  }
  require(std::isfinite(score), ErrorCode::kBadFormat, source, ": piece ", v.size(), " has score ", score);
  require(type <= 6, ErrorCode::kBadFormat, source, ": piece ", v.size(), " has type ", type, ", expected 1 to 6");
  v.pieces.emplace_back(text);
  v.scores.push_back(score);
  v.types.push_back(static_cast<PieceType>(type));
}

void read_trainer_spec(MessageReader reader, Specs& specs, Vocabulary& v) {
  Field field;
  while (reader.next(field)) {
    switch (field.number) {
      case Trainer::kModelType: specs.model_type = reader.number(field); break;
      case Trainer::kWhitespaceAsSuffix: specs.whitespace_as_suffix = reader.boolean(field); break;
      case Trainer::kByteFallback: specs.byte_fallback = reader.boolean(field); break;
      case Trainer::kUnkSurface: v.unk_text = reader.bytes(field); break;
      case Trainer::kBosPiece: specs.bos_piece = reader.bytes(field); break;
      case Trainer::kEosPiece: specs.eos_piece = reader.bytes(field); break;
      default: break;
    }
  }
}

void read_normalizer_spec(MessageReader reader, Specs& specs) {
  Field field;
  while (reader.next(field)) {
    switch (field.number) {
      case Normalizer::kCharsMap: specs.has_chars_map |= !reader.bytes(field).empty(); break;
      case Normalizer::kAddDummyPrefix: specs.add_dummy_prefix = reader.boolean(field); break;
      case Normalizer::kRemoveExtraSpaces: specs.remove_extra_spaces = reader.boolean(field); break;
      case Normalizer::kEscapeSpaces: specs.escape_spaces = reader.boolean(field); break;
      default: break;
    }
  }
}

void require_supported(const Specs& specs, std::string_view source) {
  const auto supported = [&](bool ok, std::string_view what) {
    require(ok, ErrorCode::kUnsupported, source, ": ", what);
  };
  require(specs.model_type == kModelTypeBpe, ErrorCode::kUnsupported, source, ": model type ", specs.model_type,
          " is not supported, only BPE (2)");
  supported(!specs.has_chars_map, "a map of character replacements is not supported");
  supported(!specs.remove_extra_spaces, "removing extra spaces is not supported");
  supported(specs.escape_spaces, "spaces that are not escaped are not supported");
  supported(!specs.whitespace_as_suffix, "spaces at the end of words are not supported");
}

TokenId find_piece(const Vocabulary& v, std::string_view text, PieceType type) {
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    if (v.types[id] == type && v.pieces[id] == text) return static_cast<TokenId>(id);
  }
  return -1;
}

}  // namespace

Vocabulary parse_sentencepiece_model(std::string_view bytes, std::string_view source) {
  require(!bytes.empty(), ErrorCode::kBadFormat, source, ": is empty, expected a SentencePiece model");
  Vocabulary v;
  Specs specs;
  MessageReader reader(bytes, source, "model");
  Field field;
  while (reader.next(field)) {
    switch (field.number) {
      case Model::kPieces: read_piece({reader.bytes(field), source, "piece"}, source, v); break;
      case Model::kTrainerSpec: read_trainer_spec({reader.bytes(field), source, "trainer_spec"}, specs, v); break;
      case Model::kNormalizerSpec: read_normalizer_spec({reader.bytes(field), source, "normalizer_spec"}, specs); break;
      case Model::kDenormalizerSpec: {
        Specs denormalizer;
        read_normalizer_spec({reader.bytes(field), source, "denormalizer_spec"}, denormalizer);
        specs.has_chars_map |= denormalizer.has_chars_map;
        break;
      }
      default: break;
    }
  }
  require_supported(specs, source);
  for (std::size_t id = 0; id < v.pieces.size() && v.unk_id < 0; ++id) {
    if (v.types[id] == PieceType::kUnknown) v.unk_id = static_cast<TokenId>(id);
  }
  v.bos_id = find_piece(v, specs.bos_piece, PieceType::kControl);
  v.eos_id = find_piece(v, specs.eos_piece, PieceType::kControl);
  v.add_bos = v.bos_id >= 0;  // as the models of this family expect
  v.space_prefix = specs.add_dummy_prefix ? SpacePrefix::kAlways : SpacePrefix::kNone;
  for (TokenId id = 0; id < v.size(); ++id) {
    const PieceType type = v.types[static_cast<std::size_t>(id)];
    if (type == PieceType::kControl || type == PieceType::kUnknown) {
      v.added.push_back({.id = id, .special = true, .named = false, .own_piece = true});
    }
  }
  v.validate(source);
  require(v.has_bytes() == specs.byte_fallback, ErrorCode::kBadFormat, source, ": byte_fallback is ",
          specs.byte_fallback ? "set, but there are no byte pieces" : "not set, but there are byte pieces");
  return v;
}

}  // namespace mixtral
