#include "mixtral/core/file.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string>
#include <type_traits>
#include <utility>

#include "support/error_of.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::error_of;
using test::names;
using test::TempDir;
using test::write_text;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

std::size_t count_files(const TempDir& dir) {
  std::size_t n = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(dir.path())) ++n;
  return n;
}

// Runs `action` as a user without rights on root's files, which root itself cannot be refused.
template <class F>
void as_nobody(F&& action) {
  const bool root = ::geteuid() == 0;
  if (root) REQUIRE(::seteuid(65534) == 0);
  action();
  if (root) REQUIRE(::seteuid(0) == 0);
}

struct stat status_of(const std::filesystem::path& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status;
}

// While it lives, files cannot grow beyond `bytes`: what a full disk looks like, without one.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit old_{};
  void (*old_handler_)(int);
};

}  // namespace

TEST_CASE("what is certainly not there does not exist; what the system will not show may") {
  const TempDir dir;
  write_text(dir / "f", "x");
  CHECK(may_exist(dir.path()));
  CHECK(may_exist(dir / "f"));
  CHECK_FALSE(may_exist(dir / "g"));
  std::filesystem::create_symlink("nowhere", dir / "link");
  CHECK(may_exist(dir / "link"));
  CHECK_FALSE(may_exist(dir / "f/g"));
  const std::filesystem::path locked = dir / "locked";
  std::filesystem::create_directory(locked);
  std::filesystem::permissions(locked, std::filesystem::perms::none);
  as_nobody([&] { CHECK(may_exist(locked / "g")); });
}

TEST_CASE("a mapped file shows the file's bytes and outlives a move") {
  const TempDir dir;
  write_text(dir / "f", "hello");
  MappedFile file(dir / "f");
  CHECK(text_of(file) == "hello");
  MappedFile moved(std::move(file));
  CHECK(text_of(moved) == "hello");
  write_text(dir / "g", "other");
  MappedFile other(dir / "g");
  other = std::move(moved);
  CHECK(text_of(other) == "hello");
  CHECK(other.path() == dir / "f");
  static_assert(!std::is_copy_constructible_v<MappedFile>);
}

TEST_CASE("an empty file maps to an empty span and reads as an empty string") {
  const TempDir dir;
  write_text(dir / "f", "");
  CHECK(MappedFile(dir / "f").bytes().empty());
  CHECK(read_file(dir / "f", 0).empty());
}

TEST_CASE("opening something that is no readable file names the path and the reason") {
  const TempDir dir;
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  const struct {
    std::filesystem::path path;
    ErrorCode code;
    const char* reason;
  } cases[] = {
      {dir / "missing", ErrorCode::kNotFound, "No such file"},
      {dir / "missing/below", ErrorCode::kNotFound, "No such file"},
      {dir.path(), ErrorCode::kIo, "Is a directory"},
      {dir / "pipe", ErrorCode::kIo, "not a regular file"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.path);
    for (const Error& error : {error_of([&] { MappedFile file(c.path); }), error_of([&] { read_file(c.path, 100); })}) {
      CHECK(error.code() == c.code);
      CHECK(names(error, c.path.string()));
      CHECK(names(error, c.reason));
    }
  }
}

TEST_CASE("a link that leads nowhere is told with its end") {
  const TempDir dir;
  std::filesystem::create_symlink("../blobs/0123", dir / "link");
  const Error error = error_of([&] { MappedFile(dir / "link"); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(names(error, "link: cannot open, is a link to ../blobs/0123: No such file or directory"));
}

TEST_CASE("a Git LFS pointer is not taken for the file, however it is read") {
  const TempDir dir;
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4221679088\n";
  write_text(dir / "f", pointer);
  for (const Error& error :
       {error_of([&] { MappedFile(dir / "f"); }), error_of([&] { read_file(dir / "f", 1 << 20); })}) {
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, "f: a Git LFS pointer, not the file itself; \"git lfs pull\" in its directory brings the file"));
  }
  write_text(dir / "f", pointer + std::string(1024, 'x'));  // a text about pointers
  CHECK_NOTHROW(MappedFile(dir / "f"));
  CHECK(read_file(dir / "f", 1 << 20).size() > 1024);
}

TEST_CASE("a file without read permission is an I/O error that says so") {
  const TempDir dir;
  REQUIRE(::chmod(dir.path().c_str(), 0755) == 0);
  write_text(dir / "f", "secret");
  REQUIRE(::chmod((dir / "f").c_str(), 0) == 0);
  as_nobody([&] {
    const Error error = error_of([&] { MappedFile file(dir / "f"); });
    CHECK(error.code() == ErrorCode::kIo);
    CHECK(names(error, "Permission denied"));
  });
}

TEST_CASE("read_file reads up to its limit and refuses one byte more with both numbers") {
  const TempDir dir;
  write_text(dir / "f", "12345");
  CHECK(read_file(dir / "f", 5) == "12345");
  const Error error = error_of([&] { read_file(dir / "f", 4); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "5 bytes, expected at most 4"));
}

TEST_CASE("a committed file replaces the old one and leaves nothing else") {
  const TempDir dir;
  write_text(dir / "f", "old");
  AtomicFileWriter writer(dir / "f");
  writer.write(bytes_of("new "));
  writer.write(bytes_of(""));
  writer.write(bytes_of("text"));
  CHECK(read_file(dir / "f", 100) == "old");
  writer.commit();
  CHECK(read_file(dir / "f", 100) == "new text");
  CHECK(count_files(dir) == 1);
  CHECK(names(error_of([&] { writer.write(bytes_of("x")); }), "write after commit"));
  CHECK(names(error_of([&] { writer.commit(); }), "commit called twice"));
}

TEST_CASE("a writer without commit leaves the old file and no temporary one") {
  const TempDir dir;
  write_text(dir / "f", "old");
  { AtomicFileWriter(dir / "f").write(bytes_of("new")); }
  CHECK(read_file(dir / "f", 100) == "old");
  CHECK(count_files(dir) == 1);
}

TEST_CASE("two writers of one path do not meet, and the last commit wins") {
  const TempDir dir;
  AtomicFileWriter first(dir / "f"), second(dir / "f");
  first.write(bytes_of("first"));
  second.write(bytes_of("second"));
  second.commit();
  first.commit();
  CHECK(read_file(dir / "f", 100) == "first");
  CHECK(count_files(dir) == 1);
}

TEST_CASE("a new file gets the permissions that the umask allows") {
  const TempDir dir;
  const mode_t old = ::umask(0027);
  AtomicFileWriter(dir / "f").commit();
  ::umask(old);
  CHECK((status_of(dir / "f").st_mode & 0777) == 0640);
}

TEST_CASE("a file that is replaced hands on its permissions") {
  const TempDir dir;
  for (const mode_t mode : {0600, 0664, 0755}) {
    write_text(dir / "f", "old");
    REQUIRE(::chmod((dir / "f").c_str(), mode) == 0);
    AtomicFileWriter(dir / "f").commit();
    CHECK((status_of(dir / "f").st_mode & 0777) == mode);
  }
}

TEST_CASE("links are followed: what they lead to is replaced, and they stay") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "far");
  const auto link = [&](const std::filesystem::path& target, const char* name) {
    std::filesystem::create_symlink(target, dir / name);
  };
  link("far/f", "relative");
  link(dir / "far/f", "absolute");
  link("relative", "chain");
  link("../relative", "far/back");
  for (const char* name : {"relative", "absolute", "chain", "far/back"}) {  // at first nothing is there
    CAPTURE(name);
    AtomicFileWriter writer(dir / name);
    writer.write(bytes_of(name));
    writer.commit();
    CHECK(std::filesystem::is_symlink(dir / name));
    CHECK_FALSE(std::filesystem::is_symlink(dir / "far/f"));
    CHECK(read_file(dir / "far/f", 100) == name);
  }
  CHECK(count_files(dir) == 4);
  link("none/f", "nowhere");
  CHECK(names(error_of([&] { AtomicFileWriter(dir / "nowhere"); }), "none/f: cannot create: No such file"));
  link("circle", "circle");
  CHECK(names(error_of([&] { AtomicFileWriter(dir / "circle"); }), "circle: cannot examine: Too many levels"));
  CHECK(names(error_of([&] { AtomicFileWriter(dir / "far/f/g"); }), "Not a directory"));
}

TEST_CASE("a process that dies while it writes leaves the old file and no other") {
  const TempDir dir;
  const int unnamed = ::open(dir.path().c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (unnamed < 0) {
    MESSAGE("skipped: this file system has no files without a name");
    return;
  }
  ::close(unnamed);
  write_text(dir / "f", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFileWriter writer(dir / "f");
    writer.reserve(1 << 20);
    writer.write(bytes_of("new"));
    writer.flush();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(read_file(dir / "f", 100) == "old");
  CHECK(count_files(dir) == 1);
}

TEST_CASE("running out of space names the path and the bytes and changes nothing") {
  const TempDir dir;
  write_text(dir / "f", "old");
  {
    const FileSizeLimit limit(4096);
    AtomicFileWriter writer(dir / "f");
    const std::string block(3000, 'x');
    writer.write(bytes_of(block));
    const Error error = error_of([&] { writer.write(bytes_of(block)); });
    CHECK(error.code() == ErrorCode::kIo);
    CHECK(names(error, (dir / "f").string()));
    CHECK(names(error, "cannot write 1904 bytes after 4096"));
  }
  CHECK(read_file(dir / "f", 100) == "old");
  CHECK(count_files(dir) == 1);
}

TEST_CASE("reserved room does not show in the file, and no disk has room for everything") {
  const TempDir dir;
  {
    AtomicFileWriter writer(dir / "f");
    writer.reserve(1 << 20);
    writer.write(bytes_of("text"));
    writer.commit();
  }
  CHECK(read_file(dir / "f", 100) == "text");
  CHECK(status_of(dir / "f").st_blocks * 512 < (1 << 17));  // what was not used is given back
  AtomicFileWriter writer(dir / "g");
  const Error error = error_of([&] { writer.reserve(Index{1} << 50); });
  CHECK(error.code() == ErrorCode::kIo);
  CHECK(names(error, "cannot take 1125899906842624 bytes on the disk"));
}

TEST_CASE("a file is read in pieces, by several threads or one, and ends where it ends") {
  const TempDir dir;
  write_text(dir / "f", "0123456789");
  const InputFile file(dir / "f");
  CHECK(file.size() == 10);
  std::array<std::byte, 4> piece{};
  CHECK(file.read_at(3, piece) == 4);
  CHECK(std::to_integer<char>(piece[0]) == '3');
  CHECK(file.read_at(8, piece) == 2);
  CHECK(std::to_integer<char>(piece[1]) == '9');
  CHECK(file.read_at(20, piece) == 0);
}

TEST_CASE("released pages of a mapped file are read again") {
  const TempDir dir;
  const std::string text(20000, 'x');
  write_text(dir / "f", text);
  const MappedFile file(dir / "f");
  release_mapped(file.bytes());
  CHECK(text_of(file) == text);
  release_mapped(file.bytes().first(10));
  release_mapped({});
  CHECK(text_of(file) == text);
}

TEST_CASE("a place that cannot be written is refused before anything is written") {
  const TempDir dir;
  const Error missing = error_of([&] { AtomicFileWriter writer(dir / "no/f"); });
  CHECK(missing.code() == ErrorCode::kNotFound);
  CHECK(names(missing, "no/f: cannot create"));
  CHECK(names(error_of([&] { AtomicFileWriter writer(""); }), "\"\": cannot write: names no file"));
  CHECK(names(error_of([&] { AtomicFileWriter writer(dir / "f/"); }), "f/\": cannot write: names no file"));
  // Renaming a file over a device would destroy the device.
  const Error device = error_of([&] { AtomicFileWriter writer("/dev/null"); });
  CHECK(device.code() == ErrorCode::kIo);
  CHECK(names(device, "/dev/null: cannot write: exists and is not a regular file"));
}
