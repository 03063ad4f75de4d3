// Access to files: mapped whole, read whole under a limit or in pieces, written atomically.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "mixtral/core/types.hpp"

namespace mixtral {

// Also true of a link that leads nowhere, and if the system will not say: then opening it tells the reason.
bool may_exist(const std::filesystem::path& path) noexcept;

// A file mapped read-only. Pages are read when touched and shared with other processes. The file must not
// shrink while it is mapped: no library can turn the resulting bus error into an exception.
class MappedFile {
 public:
  // Throws Error(kNotFound | kIo) that names the path and the system's reason, and kBadFormat if it is a Git LFS
  // pointer. An empty file is an empty span.
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

// An open regular file, read where the caller wants. Any number of threads may read at once.
class InputFile {
 public:
  // Throws Error(kNotFound | kIo) that names the path and the system's reason.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  Index size() const noexcept { return size_; }
  int descriptor() const noexcept { return descriptor_; }
  // At most out.size() bytes from `offset` on; fewer only where the file ends. Throws Error(kIo).
  std::size_t read_at(Index offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int descriptor_;
  Index size_ = 0;
};

// Lets the system take back the pages of a mapped file that lie within; they are read again when touched. Memory that
// is no mapped file would lose its contents.
void release_mapped(std::span<const std::byte> bytes) noexcept;

// The whole file. Throws Error(kNotFound | kIo), and kBadFormat if it is larger than `max_bytes` or a Git LFS pointer.
std::string read_file(const std::filesystem::path& path, Index max_bytes);

// Writes atomically: into a file without a name, which becomes `path` once it is whole and flushed to disk. Whoever
// is killed before that leaves nothing; where the file system knows no such files, one with a name beside `path` that
// the destructor removes. Links are followed: what they lead to is replaced, and they stay. A file that is replaced
// hands on its owner and permissions, if this process may give a file that owner. Every member throws
// Error(kNotFound | kIo) that names the file, the bytes written and the system's reason; what was there is then as it
// was. A path that is no regular file (a device) is refused.
class AtomicFileWriter {
 public:
  explicit AtomicFileWriter(const std::filesystem::path& path);
  ~AtomicFileWriter();  // without commit(): nothing was written
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  // Takes room on the disk for a file of that size, where the file system can: what will not fit fails at once.
  void reserve(Index bytes);
  void write(std::span<const std::byte> bytes);
  // Replaces bytes that were written already, from the beginning of the file on.
  void rewrite_beginning(std::span<const std::byte> bytes);
  // Everything to the disk, which may take long; commit() does it if it was not done.
  void flush();
  void commit();

 private:
  std::filesystem::path path_;       // where links led
  std::filesystem::path temporary_;  // empty: the file has no name yet
  int descriptor_ = -1;
  Index written_ = 0, reserved_ = 0;
};

}  // namespace mixtral
