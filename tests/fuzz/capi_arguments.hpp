// Arguments of C ABI calls, good and bad: structs of any size, buffers of any capacity, lists of ids.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "bytes.hpp"
#include "expect.hpp"
#include "mixtral.h"

namespace mixtral::fuzz {

inline constexpr std::size_t kHuge = std::numeric_limits<std::size_t>::max();
inline constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
inline constexpr std::uint32_t kFlags[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, ~std::uint32_t{0}};

// An option struct in more memory than any struct_size that the library may believe. `init` fills in the defaults.
// kFirst: its size in the version that brought it.
template <class T, std::uint32_t kFirst = sizeof(T)>
class Struct {
 public:
  template <class Init>
  Struct(Bytes& bytes, Init init) {
    memory_.fill(0);
    expect(init(get(), sizeof(T)) == MIXTRAL_OK, "the defaults can be had");
    std::uint32_t size = sizeof(T);
    switch (bytes.below(24)) {
      case 0: size = sizeof(T) + 8; break;
      case 1: size = kMost; break;
      case 2:
        size = sizeof(T) + 16;
        memory_[sizeof(T) + bytes.below(16)] = 1;
        valid_ = false;
        break;
      case 3:
        size = bytes.pick(std::array<std::uint32_t, 6>{0, 1, 4, kFirst - 4, kMost + 1, ~std::uint32_t{0}});
        valid_ = false;
        break;
      case 4: size = kFirst; break;
      default: break;
    }
    get()->struct_size = size;
  }
  T* get() noexcept { return reinterpret_cast<T*>(memory_.data()); }
  T* operator->() noexcept { return get(); }
  bool valid() const noexcept { return valid_; }

  static constexpr std::uint32_t kMost = 1024;

 private:
  alignas(16) std::array<unsigned char, kMost + 64> memory_;
  bool valid_ = true;
};

// A struct that a call fills.
template <class T, std::uint32_t kFirst = sizeof(T)>
class OutStruct {
 public:
  explicit OutStruct(Bytes& bytes) {
    memory_.fill(kUntouched);
    switch (bytes.below(12)) {
      case 0: size_ = sizeof(T) + 8; break;
      case 1: size_ = kMost; break;
      case 2:
        size_ = bytes.pick(std::array<std::uint32_t, 6>{0, 1, 4, kFirst - 4, kMost + 1, ~std::uint32_t{0}});
        break;
      case 3: null_ = true; break;
      case 4: size_ = kFirst; break;
      default: break;
    }
    reinterpret_cast<T*>(memory_.data())->struct_size = size_;
    before_ = memory_;
  }
  T* get() noexcept { return null_ ? nullptr : reinterpret_cast<T*>(memory_.data()); }
  T* operator->() noexcept { return get(); }
  bool is_null() const noexcept { return null_; }
  bool valid() const noexcept { return !null_ && size_ >= kFirst && size_ <= kMost; }

  void check(mixtral_status status) const {
    if (status != MIXTRAL_OK || null_) return expect(memory_ == before_, "an error leaves the caller's struct alone");
    for (std::size_t i = std::min<std::size_t>(size_, sizeof(T)); i < memory_.size(); ++i) {
      expect(memory_[i] == (i < size_ ? 0 : kUntouched), "fields that are not known become 0, and nothing behind them");
    }
  }

  static constexpr std::uint32_t kMost = 1024;

 private:
  static constexpr unsigned char kUntouched = 0xA5;
  alignas(16) std::array<unsigned char, kMost + 64> memory_;
  std::array<unsigned char, kMost + 64> before_;
  std::uint32_t size_ = sizeof(T);
  bool null_ = false;
};

// A buffer that a call fills.
template <class T>
class Out {
 public:
  explicit Out(Bytes& bytes) : items_(kMost) {
    std::memset(items_.data(), 0xA5, kMost * sizeof(T));
    before_ = items_;
    switch (bytes.below(16)) {
      case 0: null_ = true, capacity_ = 0; break;
      case 1: null_ = true, valid_ = false; break;
      case 2: capacity_ = bytes.below(8); break;
      case 3: valid_ = false, no_size_ = true; break;
      case 4: capacity_ = kHuge; break;
      default: break;
    }
  }
  T* data() noexcept { return null_ ? nullptr : items_.data(); }
  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t* size() noexcept { return no_size_ ? nullptr : &size_; }
  bool valid() const noexcept { return valid_; }
  std::span<const T> items() const noexcept { return {items_.data(), size_}; }

  void check(mixtral_status status) const {
    std::size_t written = 0;
    if (status == MIXTRAL_OK) {
      expect(size_ <= capacity_ && size_ <= kMost, "an answer that was given fits");
      written = size_;
    } else if (status == MIXTRAL_BUFFER_TOO_SMALL) {
      expect(size_ != kUntouched && size_ > capacity_, "a buffer that is too small learns the size");
    } else {
      expect(size_ == kUntouched, "an error leaves the caller's size alone");
    }
    expect(std::memcmp(items_.data() + written, before_.data() + written, (kMost - written) * sizeof(T)) == 0,
           "nothing is written that is not the answer");
  }

  static constexpr std::size_t kMost = 2048;  // more than any answer of a sequence

 private:
  static constexpr std::size_t kUntouched = 0xA5A5A5A5;
  std::vector<T> items_, before_;
  std::size_t capacity_ = kMost, size_ = kUntouched;
  bool null_ = false, no_size_ = false, valid_ = true;
};

// A text that may be NULL, with a length that fits or, without a text, does not.
struct Text {
  explicit Text(Bytes& bytes) {
    switch (bytes.below(12)) {
      case 0: break;  // NULL, 0
      case 1:
        size = bytes.pick(std::array<std::size_t, 3>{1, 5, kHuge});
        invalid = true;
        break;
      default: {
        const std::string_view text = bytes.text(24);
        data = text.data();
        size = text.size();
      }
    }
  }
  const char* data = nullptr;
  std::size_t size = 0;
  bool invalid = false;
};

// Ids for a call that reads them.
struct Ids {
  Ids(Bytes& bytes, std::size_t vocab_size, std::vector<std::int32_t> first = {}) : values(std::move(first)) {
    const std::size_t shape = bytes.below(16);
    const std::size_t more = shape == 0 ? 50 : bytes.below(8);
    const auto vocab = static_cast<std::int32_t>(vocab_size);
    for (std::size_t i = 0; i < more; ++i) {
      std::int32_t id = bytes.byte() + (shape == 1 ? vocab - 255 : 0);
      if (shape == 2 && bytes.chance(4)) {
        id = bytes.pick(std::array<std::int32_t, 4>{-1, vocab, std::numeric_limits<std::int32_t>::max(),
                                                    std::numeric_limits<std::int32_t>::min()});
      }
      valid = valid && id >= 0 && id < vocab;
      values.push_back(id);
    }
    n = values.size();
    data = values.data();
    if (shape == 3) data = nullptr, null = n > 0;
  }

  std::vector<std::int32_t> values;
  const std::int32_t* data = nullptr;
  std::size_t n = 0;
  bool valid = true;  // all ids are in the vocabulary
  bool null = false;  // NULL with a length: invalid
};

// Messages of a conversation, as an array whose elements may be of a later version.
class Messages {
 public:
  // `first`: the role that would be in order at the beginning.
  Messages(Bytes& bytes, std::size_t vocab_size, std::int32_t first = MIXTRAL_ROLE_USER) {
    const std::size_t stride =
        sizeof(mixtral_chat_message) + bytes.pick(std::array<std::size_t, 8>{0, 0, 0, 0, 0, 8, 16, 4});
    n = bytes.below(kMost);
    answers_.reserve(n);
    for (std::size_t i = 0; i < n; ++i) {
      mixtral_chat_message m{};
      m.struct_size = static_cast<std::uint32_t>(bytes.chance(32) ? bytes.byte() : stride);
      const bool users = (i % 2 == 0) == (first == MIXTRAL_ROLE_USER);
      m.role = bytes.chance(16) ? bytes.byte() - 1 : users ? MIXTRAL_ROLE_USER : MIXTRAL_ROLE_ASSISTANT;
      const Text text(bytes);
      m.text = text.data;
      m.text_size = text.size;
      if (bytes.chance(4)) {
        const Ids& ids = answers_.emplace_back(bytes, vocab_size);
        m.tokens = ids.data;
        m.n_tokens = ids.n;
      }
      std::memcpy(memory_.data() + i * stride, &m, sizeof m);
      roles.push_back(m.role);
      texts.emplace_back(text.data, text.invalid ? 0 : text.size);
    }
    data = reinterpret_cast<const mixtral_chat_message*>(memory_.data());
    if (n > 0 && bytes.chance(16)) data = nullptr, n = bytes.chance(2) ? kHuge : n;
  }
  Messages(const Messages&) = delete;  // `data` looks at a member
  Messages& operator=(const Messages&) = delete;

  const mixtral_chat_message* data;
  std::size_t n;
  std::vector<std::int32_t> roles;
  std::vector<std::string_view> texts;

 private:
  static constexpr std::size_t kMost = 6;

  alignas(16) std::array<unsigned char, kMost*(sizeof(mixtral_chat_message) + 16)> memory_{};
  std::vector<Ids> answers_;
};

}  // namespace mixtral::fuzz
