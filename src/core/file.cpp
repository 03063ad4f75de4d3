// Files through POSIX: every failure names the path, what was being done, and the system's reason.
#include "mixtral/core/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string_view>
#include <system_error>
#include <utility>

#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

[[noreturn]] void fail_system(const std::filesystem::path& path, const std::string& action, int error) {
  const bool missing = error == ENOENT || error == ENOTDIR;
  fail(missing ? ErrorCode::kNotFound : ErrorCode::kIo, path.string(), ": ", action, ": ",
       std::generic_category().message(error));
}

// Repeats a system call that a signal interrupted.
template <class F>
auto retry(F call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

void unmap(const std::byte* data, std::size_t size) noexcept {
  if (data != nullptr) ::munmap(const_cast<std::byte*>(data), size);
}

std::filesystem::path directory_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : ".";
}

// A link that leads nowhere is not the file's name mistyped: whoever copied it must know where it leads.
[[noreturn]] void fail_open(const std::filesystem::path& path, int error) {
  std::error_code no_link;
  const std::filesystem::path target = std::filesystem::read_symlink(path, no_link);
  if (error == ENOENT && !no_link) fail_system(path, "cannot open, is a link to " + target.string(), error);
  fail_system(path, "cannot open", error);
}

// In the place of a large file, git without its LFS extension leaves a few lines of text.
void refuse_lfs_pointer(const std::filesystem::path& path, std::string_view bytes) {
  constexpr std::size_t kLongest = 1024;  // says the specification of pointers
  const bool is_pointer = bytes.size() < kLongest && bytes.starts_with("version https://git-lfs.github.com/spec/");
  if (is_pointer) {
    fail(ErrorCode::kBadFormat, path.string(),
         ": a Git LFS pointer, not the file itself; \"git lfs pull\" in its directory brings the file");
  }
}

// The new file becomes durable under its name with this. Some file systems cannot; the name is already
// right for every reader by then, so that is no error.
void sync_directory(const std::filesystem::path& file) noexcept {
  const int descriptor = ::open(directory_of(file).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

// Where the links of `path` lead, whether something is there or not. The system has followed them already, and would
// have refused a circle.
std::filesystem::path target_of(std::filesystem::path path) {
  std::error_code error;
  constexpr int kMostLinks = 40;  // as Linux
  for (int i = 0; i < kMostLinks && std::filesystem::is_symlink(std::filesystem::symlink_status(path, error)); ++i) {
    const std::filesystem::path target = std::filesystem::read_symlink(path, error);
    if (error) fail_system(path, "cannot follow", error.value());
    path = path.parent_path() / target;
  }
  return path;
}

std::string own_link(int descriptor) { return str("/proc/self/fd/", descriptor); }

// A file without a name, for writing: the system takes it back with its last user, however that ends. -1 where there
// are none, or where none could be given a name.
int open_unnamed(const std::filesystem::path& directory) {
  const int descriptor =
      retry([&] { return ::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, mode_t{0666}); });
  if (descriptor < 0 || ::access(own_link(descriptor).c_str(), F_OK) == 0) return descriptor;
  ::close(descriptor);
  return -1;
}

int link_unnamed(int descriptor, const char* name) {
  return ::linkat(AT_FDCWD, own_link(descriptor).c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW);
}

// Not mkstemp: that ignores the umask.
int open_new(const char* name) { return ::open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode_t{0666}); }

// The first name beside `path` that `make` could give. Names left over from a process that died are skipped.
template <class Make>
std::filesystem::path beside(const std::filesystem::path& path, Make make) {
  for (int attempt = 0;; ++attempt) {
    std::filesystem::path name = path;
    name += str(".", ::getpid(), "-", attempt, ".tmp");
    if (retry([&] { return make(name.c_str()); }) >= 0) return name;
    if (errno != EEXIST || attempt == 1000) fail_system(path, "cannot create", errno);
  }
}

}  // namespace

bool may_exist(const std::filesystem::path& path) noexcept {
  std::error_code ignored;
  return std::filesystem::symlink_status(path, ignored).type() != std::filesystem::file_type::not_found;
}

InputFile::InputFile(const std::filesystem::path& path)
    : path_(path),
      // O_NONBLOCK: a pipe that somebody put in the place of a file must not block us.
      descriptor_(retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); })) {
  if (descriptor_ < 0) fail_open(path, errno);
  const auto refuse = [&](const char* action, int error) {
    ::close(descriptor_);
    fail_system(path, action, error);
  };
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) refuse("cannot examine", errno);
  if (S_ISDIR(status.st_mode)) refuse("cannot read", EISDIR);
  if (!S_ISREG(status.st_mode)) refuse("cannot read: not a regular file", EINVAL);
  size_ = status.st_size;
}

InputFile::~InputFile() { ::close(descriptor_); }

std::size_t InputFile::read_at(Index offset, std::span<std::byte> out) const {
  std::size_t used = 0;
  while (used < out.size()) {
    const Index at = offset + static_cast<Index>(used);
    const ssize_t n = retry([&] { return ::pread(descriptor_, out.data() + used, out.size() - used, at); });
    if (n < 0) fail_system(path_, str("cannot read after ", at, " of ", size_, " bytes"), errno);
    if (n == 0) break;
    used += static_cast<std::size_t>(n);
  }
  return used;
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const InputFile file(path);
  if (file.size() == 0) return;  // mmap refuses an empty range
  const auto size = static_cast<std::size_t>(file.size());
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (data == MAP_FAILED) fail_system(path, str("cannot map ", file.size(), " bytes"), errno);
  data_ = static_cast<const std::byte*>(data);
  size_ = size;
  try {
    refuse_lfs_pointer(path, {static_cast<const char*>(data), size});
  } catch (...) {
    unmap(data_, size_);
    throw;
  }
}

MappedFile::~MappedFile() { unmap(data_, size_); }

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void release_mapped(std::span<const std::byte> bytes) noexcept {
  constexpr std::uintptr_t kPage = 4096;
  const auto begin = (reinterpret_cast<std::uintptr_t>(bytes.data()) + kPage - 1) / kPage * kPage;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data() + bytes.size()) / kPage * kPage;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_file(const std::filesystem::path& path, Index max_bytes) {
  const InputFile file(path);
  require(file.size() <= max_bytes, ErrorCode::kBadFormat, path.string(), ": ", file.size(),
          " bytes, expected at most ", max_bytes);
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  const std::size_t used = file.read_at(0, std::as_writable_bytes(std::span(text)));  // less if it shrank meanwhile
  text.resize(used);
  refuse_lfs_pointer(path, text);
  return text;
}

AtomicFileWriter::AtomicFileWriter(const std::filesystem::path& path) {
  struct stat old {};
  const bool exists = retry([&] { return ::stat(path.c_str(), &old); }) == 0;
  if (!exists && errno != ENOENT) fail_system(path, "cannot examine", errno);
  // Renaming over a device or a pipe would destroy it.
  require(!exists || S_ISREG(old.st_mode), ErrorCode::kIo, path.string(),
          ": cannot write: exists and is not a regular file");
  path_ = target_of(path);
  require(path_.has_filename(), ErrorCode::kIo, '"', path_.string(), "\": cannot write: names no file");
  descriptor_ = open_unnamed(directory_of(path_));
  if (descriptor_ < 0) temporary_ = beside(path_, [&](const char* name) { return descriptor_ = open_new(name); });
  // Where the owner cannot stay, others' permissions are not his: then it is a file as new.
  if (exists && ::fchown(descriptor_, old.st_uid, old.st_gid) == 0) ::fchmod(descriptor_, old.st_mode & mode_t{0777});
}

AtomicFileWriter::~AtomicFileWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFileWriter::reserve(Index bytes) {
  require(descriptor_ >= 0, path_.string(), ": reserve after commit");
  if (bytes <= 0) return;
  reserved_ = bytes;
  if (retry([&] { return ::fallocate(descriptor_, FALLOC_FL_KEEP_SIZE, 0, bytes); }) == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS)
    fail_system(path_, str("cannot take ", bytes, " bytes on the disk"), errno);
}

void AtomicFileWriter::write(std::span<const std::byte> bytes) {
  require(descriptor_ >= 0, path_.string(), ": write after commit");
  const Index begin = written_;
  while (!bytes.empty()) {
    const ssize_t n = retry([&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    if (n < 0) fail_system(path_, str("cannot write ", bytes.size(), " bytes after ", written_), errno);
    written_ += n;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  // The disk begins at once with what is big, and works while the caller makes the next bytes.
  constexpr Index kBig = Index{1} << 20;
  if (written_ - begin >= kBig) ::sync_file_range(descriptor_, begin, written_ - begin, SYNC_FILE_RANGE_WRITE);
}

void AtomicFileWriter::rewrite_beginning(std::span<const std::byte> bytes) {
  require(descriptor_ >= 0 && static_cast<Index>(bytes.size()) <= written_, path_.string(), ": ", bytes.size(),
          " bytes to replace, ", written_, " are written");
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t n = retry(
        [&] { return ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done)); });
    if (n < 0) fail_system(path_, str("cannot replace the first ", bytes.size(), " bytes"), errno);
    done += static_cast<std::size_t>(n);
  }
}

void AtomicFileWriter::flush() {
  require(descriptor_ >= 0, path_.string(), ": flush after commit");
  // A file keeps the room behind its end that was reserved and not used, until it is cut there.
  if (reserved_ > written_) retry([&] { return ::ftruncate(descriptor_, written_); });
  if (::fsync(descriptor_) != 0) fail_system(path_, str("cannot flush ", written_, " bytes to disk"), errno);
}

void AtomicFileWriter::commit() {
  require(descriptor_ >= 0, path_.string(), ": commit called twice");
  flush();
  // A link gives the file its name, but not in the place of another: that takes a second name to rename.
  const auto link = [&](const char* name) { return link_unnamed(descriptor_, name); };
  if (!temporary_.empty() || link(path_.c_str()) != 0) {
    if (temporary_.empty()) temporary_ = beside(path_, link);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_system(path_, "cannot rename into place", errno);
  }
  ::close(descriptor_);  // everything is on disk already: nothing is left to fail
  descriptor_ = -1;
  sync_directory(path_);
}

}  // namespace mixtral
