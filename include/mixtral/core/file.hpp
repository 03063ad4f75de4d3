// Read-only access to files: mapped whole, or read whole under a limit.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "mixtral/core/types.hpp"

namespace mixtral {

// Also true if the system will not say: then opening it tells the reason.
bool may_exist(const std::filesystem::path& path) noexcept;

// A file mapped read-only. Pages are read when touched and shared with other processes. The file must not
// shrink while it is mapped: no library can turn the resulting bus error into an exception.
class MappedFile {
 public:
  // Throws Error(kNotFound | kIo) that names the path and the system's reason. An empty file is an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// The whole file. Throws Error(kNotFound | kIo), and kBadFormat if it is larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, Index max_bytes);

// Writes atomically: a temporary file beside `path`, flushed to disk, then renamed over it. Every member throws
// Error(kNotFound | kIo) that names the path, the bytes written and the system's reason; `path` is then as it
// was, and the destructor leaves no temporary file. A path that is no regular file (a device) is refused.
class AtomicFileWriter {
 public:
  explicit AtomicFileWriter(std::filesystem::path path);
  ~AtomicFileWriter();  // without commit(): removes the temporary file
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  void write(std::span<const std::byte> bytes);
  // Replaces bytes that were written already, from the beginning of the file on.
  void rewrite_beginning(std::span<const std::byte> bytes);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  Index written_ = 0;
};

}  // namespace mixtral
