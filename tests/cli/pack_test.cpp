#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <set>
#include <string>

#include "mixtral/core/file.hpp"
#include "support/program.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::contains;
using test::quoted;
using test::run_program;

namespace {

const std::string kTiny = test::quoted(MIXTRAL_TINY_DIR);

// Packs the tiny model into `out`, as `weights`, and sends the signal so many microseconds after the program was
// started. What waitpid() says.
int pack_and_signal(const std::string& out, const char* weights, int signal, useconds_t microseconds) {
  int started[2];
  REQUIRE(::pipe2(started, O_CLOEXEC) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const int null = ::open("/dev/null", O_RDWR);
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, descriptor);
    for (const int s : {SIGINT, SIGTERM}) std::signal(s, SIG_DFL);
    ::execl(MIXTRAL_PROGRAM, "mixtral", "pack", MIXTRAL_TINY_DIR, out.c_str(), "--weights", weights, "--threads", "2",
            nullptr);
    ::_exit(127);
  }
  ::close(started[1]);
  char byte = 0;
  while (::read(started[0], &byte, 1) < 0 && errno == EINTR) continue;  // the end, once the program has taken over
  ::close(started[0]);
  ::usleep(microseconds);
  ::kill(child, signal);
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::set<std::string> names_in(const test::TempDir& dir) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) names.insert(entry.path().filename());
  return names;
}

}  // namespace

TEST_CASE("pack writes a file that every command runs, verify checks it") {
  const test::TempDir dir;
  const std::string file = quoted(dir / "tiny.p4");
  const auto packed = run_program("pack " + kTiny + " " + file + " --weights p4 --head p8");
  CHECK(packed.status == 0);
  CHECK(contains(packed.out, "bits a weight"));
  CHECK(packed.err.empty());
  const auto verified = run_program("pack --verify " + file);
  CHECK(verified.status == 0);
  CHECK(contains(verified.out, "all checksums are right"));
  for (const char* resident : {"", " --resident"}) {
    const auto text = run_program("generate --model " + file + resident + " --prompt 'RETURN VALUE' --greedy --n 8");
    CHECK(text.status == 0);
    CHECK(!text.out.empty());
  }
  CHECK(contains(run_program("inspect --model " + file).out, "P4"));
  CHECK(run_program("tokenize --model " + file).status == 0);
  const auto compared = run_program("compare --model " + file + " --reference " + kTiny + " --text " +
                                    quoted(std::string(MIXTRAL_GOLDEN_DIR) + "/tiny/heldout/en.txt") + " --json");
  CHECK(compared.status == 0);
  CHECK(contains(compared.out, "P4"));

  // A flipped bit in an expert, found by its place in the header.
  std::string bytes = read_file(dir / "tiny.p4", Index{1} << 30);
  const std::string places = "\"data_offsets\":[";
  const std::size_t begin = bytes.find(places, bytes.find("\"layers.2.experts.3\":{")) + places.size();
  std::size_t header = 0;
  for (std::size_t i = 4; i-- > 0;) header = header << 8 | static_cast<unsigned char>(bytes[i]);
  char& byte = bytes[8 + header + std::stoul(bytes.substr(begin)) + 1000];
  byte = static_cast<char>(byte ^ 1);
  test::write_text(dir / "flipped", bytes);
  const auto bad = run_program("pack --verify " + quoted(dir / "flipped"));
  CHECK(bad.status == 1);
  CHECK(contains(bad.err, "layers.2.experts.3 is"));
}

TEST_CASE("pack --calibrate reads texts first, which changes the numbers that are stored") {
  const test::TempDir dir;
  const std::string plain = quoted(dir / "plain"), calibrated = quoted(dir / "calibrated");
  const std::string text = quoted(std::string(MIXTRAL_GOLDEN_DIR) + "/tiny/heldout/en.txt");
  CHECK(run_program("pack " + kTiny + " " + plain + " --weights p4").status == 0);
  const auto packed =
      run_program("pack " + kTiny + " " + calibrated + " --weights p4 --calibrate " + text + " --max-tokens 200");
  CHECK(packed.status == 0);
  CHECK(packed.err.empty());
  CHECK(std::filesystem::file_size(dir / "plain") == std::filesystem::file_size(dir / "calibrated"));
  CHECK(read_file(dir / "plain", Index{1} << 30) != read_file(dir / "calibrated", Index{1} << 30));
  CHECK(run_program("pack --verify " + calibrated).status == 0);

  const auto missing = run_program("pack " + kTiny + " " + plain + " --weights p4 --calibrate nowhere.txt");
  CHECK(missing.status == 1);
  CHECK(contains(missing.err, "nowhere.txt"));
  CHECK(run_program("pack " + kTiny + " " + plain + " --weights p4 --max-tokens 5").status == 2);
}

TEST_CASE("a bf16 file is a model to pack like any other, its tokenizer goes on with it") {
  const test::TempDir dir;
  const std::string wide = quoted(dir / "wide"), narrow = quoted(dir / "narrow"), direct = quoted(dir / "direct");
  CHECK(run_program("pack " + kTiny + " " + wide + " --weights bf16").status == 0);
  CHECK(run_program("pack " + wide + " " + narrow + " --weights p4").status == 0);
  CHECK(run_program("pack " + kTiny + " " + direct + " --weights p4").status == 0);
  CHECK(read_file(dir / "narrow", Index{1} << 30) == read_file(dir / "direct", Index{1} << 30));
}

TEST_CASE("no file of the model that is read is written over, by whatever name") {
  const test::TempDir dir;
  std::filesystem::copy(std::filesystem::path(MIXTRAL_TINY_DIR), dir / "m", std::filesystem::copy_options::recursive);
  std::filesystem::create_symlink("m/tokenizer.model", dir / "link");
  const std::string model = quoted(dir / "m"), weights = quoted(dir / "m" / "model.safetensors");
  CHECK(contains(run_program("pack " + model + " " + weights + " --weights bf16").err,
                 "is the input's model.safetensors"));
  CHECK(contains(run_program("pack " + model + " " + quoted(dir / "link") + " --weights bf16").err,
                 "is the input's tokenizer.model"));
  CHECK(run_program("eval --model " + model + " --ids 1,2 --out " + weights).status == 1);
  CHECK(run_program("compare --model " + model + " --reference " + kTiny + " --text " +
                    quoted(dir / "m" / "config.json") + " --max-tokens 8 --report " + weights)
            .status == 1);
  CHECK(run_program("inspect --check --model " + model).status == 0);
  CHECK(run_program("pack " + model + " " + quoted(dir / "m" / "new") + " --weights bf16").status == 0);
}

TEST_CASE("pack refuses bad usage, bad paths and models that are packed") {
  const test::TempDir dir;
  const std::string out = quoted(dir / "out");
  CHECK(run_program("pack").status == 2);
  CHECK(run_program("pack " + kTiny + " " + out).status == 2);
  CHECK(run_program("pack " + kTiny + " --weights p4").status == 2);
  CHECK(run_program("pack " + kTiny + " " + out + " --weights p5").status == 2);
  CHECK(run_program("pack --synthetic llama " + out + " --weights p4").status == 2);
  CHECK(run_program("pack " + kTiny + " " + out + " --weights p4 --layers 2").status == 2);
  CHECK(run_program("pack --verify " + out + " --weights p4").status == 2);
  CHECK(!std::filesystem::exists(dir / "out"));
  CHECK(run_program("pack " + quoted(dir / "none") + " " + out + " --weights p4").status == 1);
  CHECK(run_program("pack --verify " + quoted(dir / "none")).status == 1);
  CHECK(run_program("pack " + kTiny + " " + quoted(dir.path().string()) + " --weights p4").status == 1);
  CHECK(run_program("pack " + kTiny + " " + out + " --weights p8").status == 0);
  CHECK(contains(run_program("pack " + out + " " + quoted(dir / "again") + " --weights p4").err,
                 "cannot be packed again"));
  CHECK(contains(run_program("pack " + out + " " + out + " --weights p4").err, "is the input"));
  CHECK(!std::filesystem::exists(dir / "again"));
}

TEST_CASE("a full disk is a clear error that leaves the file as it was, and no other") {
  const test::TempDir dir;
  // A file system of 2 MB, if this process may mount one.
  const std::string mount = quoted(dir.path().string());
  if (std::system(("mount -t tmpfs -o size=2m none " + mount + " 2>/dev/null").c_str()) != 0) {
    MESSAGE("skipped: no right to mount a small file system");
    return;
  }
  for (const auto& [name, weights] : {std::pair{"model", "p8"}, {"model.gguf", "q8_0"}}) {
    test::write_text(dir / name, "what was there");
    const auto full = run_program("pack " + kTiny + " " + quoted(dir / name) + " --weights " + weights);
    CHECK(full.status == 1);
    CHECK(contains(full.err, "cannot take"));
    CHECK(contains(full.err, "No space left"));
    CHECK(read_file(dir / name, 100) == "what was there");
    CHECK(names_in(dir) == std::set<std::string>{name});
    std::filesystem::remove(dir / name);
  }
  CHECK(std::system(("umount " + mount).c_str()) == 0);
}

TEST_CASE("a signal at any moment of packing leaves the old file or the new one, whole, and nothing else") {
  for (const auto& [name, weights] : {std::pair{"out", "p8"}, {"out.gguf", "q8_0"}}) {
    CAPTURE(name);
    const test::TempDir dir, whole;
    const double begin = seconds();
    REQUIRE(pack_and_signal(whole / name, weights, 0, 0) == 0);
    const auto time = static_cast<useconds_t>(1e6 * (seconds() - begin));
    const std::string packed = read_file(whole / name, Index{1} << 30);
    int n_killed = 0;
    for (useconds_t moment = 0; moment < 20; ++moment) {
      CAPTURE(moment);
      test::write_text(dir / name, "what was there");
      const int signal = moment % 2 == 0 ? SIGINT : SIGTERM;
      const int status = pack_and_signal(dir / name, weights, signal, time * moment / 20);
      const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == signal;
      n_killed += killed;
      CHECK((killed || status == 0));
      CHECK(names_in(dir) == std::set<std::string>{name});
      const std::string found = read_file(dir / name, Index{1} << 30);
      CHECK((found == packed || (killed && found == "what was there")));
    }
    CHECK(n_killed > 0);
  }
}

TEST_CASE("pack writes where a link leads, and the link stays") {
  const test::TempDir dir;
  std::filesystem::create_directory(dir / "big");
  std::filesystem::create_symlink("big/model", dir / "link");
  CHECK(run_program("pack " + kTiny + " " + quoted(dir / "link") + " --weights p4").status == 0);
  CHECK(std::filesystem::is_symlink(dir / "link"));
  CHECK(run_program("pack --verify " + quoted(dir / "big/model")).status == 0);
}

TEST_CASE("pack --calibrate reads standard input, too") {
  const test::TempDir dir;
  const std::string text = quoted(std::string(MIXTRAL_GOLDEN_DIR) + "/tiny/heldout/en.txt");
  const std::string options = " --weights p4 --max-tokens 100 --calibrate ";
  CHECK(run_program("pack " + kTiny + " " + quoted(dir / "a") + options + text).status == 0);
  CHECK(run_program("pack " + kTiny + " " + quoted(dir / "b") + options + "- <" + text).status == 0);
  CHECK(read_file(dir / "a", Index{1} << 30) == read_file(dir / "b", Index{1} << 30));
}

TEST_CASE("pack writes a GGUF file where OUT is called one, and every command runs it") {
  const test::TempDir dir;
  const std::string text = quoted(std::string(MIXTRAL_GOLDEN_DIR) + "/tiny/heldout/en.txt");
  for (const char* weights : {"f16", "q8_0", "q4_0"}) {
    CAPTURE(weights);
    const std::string file = quoted(dir / "tiny.gguf");
    const auto packed = run_program("pack " + kTiny + " " + file + " --weights " + weights);
    CHECK(packed.status == 0);
    CHECK(packed.err.empty());
    CHECK(contains(packed.out, "bits a weight"));
    CHECK(contains(run_program("inspect --model " + file).out, weights[0] == 'f'   ? "F16"
                                                               : weights[1] == '8' ? "Q8_0"
                                                                                   : "Q4_0"));
    const auto got = run_program("generate --model " + file + " --prompt 'RETURN VALUE' --greedy --n 8");
    CHECK(got.status == 0);
    if (weights[0] == 'f') {
      CHECK(got.out == run_program("generate --model " + kTiny + " --prompt 'RETURN VALUE' --greedy --n 8").out);
    }
  }
  // A packed file and a GGUF file are models to write, too; the tokenizer goes on with them.
  const std::string wide = quoted(dir / "wide"), again = quoted(dir / "again.gguf"), third = quoted(dir / "third.gguf");
  CHECK(run_program("pack " + kTiny + " " + wide + " --weights bf16").status == 0);
  CHECK(run_program("pack " + wide + " " + again + " --weights q4_0 --attention q8_0 --head f16").status == 0);
  CHECK(contains(run_program("inspect --model " + again).out, "Q8_0"));
  CHECK(run_program("pack " + again + " " + third + " --weights q4_0 --attention q8_0 --head f16").status == 0);
  CHECK(read_file(dir / "again.gguf", Index{1} << 30) == read_file(dir / "third.gguf", Index{1} << 30));
  CHECK(run_program("tokenize --model " + third + " <" + text).out == run_program("tokenize <" + text).out);
}

TEST_CASE("a model without a tokenizer becomes a GGUF file without one, and the user is told") {
  const test::TempDir dir;
  std::filesystem::create_directory(dir / "m");
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy(std::filesystem::path(MIXTRAL_TINY_DIR) / name, dir / "m" / name);
  }
  const auto packed = run_program("pack " + quoted(dir / "m") + " " + quoted(dir / "m.gguf") + " --weights q8_0");
  CHECK(packed.status == 0);
  CHECK(packed.err == "mixtral: note: " + (dir / "m").string() + ": no tokenizer, so the GGUF file has none either\n");
  CHECK(run_program("eval --model " + quoted(dir / "m.gguf") + " --ids 1,2,3").status == 0);
}

TEST_CASE("formats of GGUF files and of packed ones are not taken for each other") {
  const test::TempDir dir;
  const std::string gguf = quoted(dir / "m.gguf"), packed = quoted(dir / "m");
  const auto refused = [&](const std::string& arguments, const char* why) {
    const auto answer = run_program("pack " + arguments);
    CAPTURE(answer.err);
    CHECK(answer.status == 2);
    CHECK(contains(answer.err, why));
  };
  refused(kTiny + " " + gguf + " --weights p4",
          "--weights: p4 is no format of a GGUF file, which has f16, q8_0 or q4_0");
  refused(kTiny + " " + gguf + " --weights q4_0 --head p8", "--head: p8 is no format of a GGUF file");
  refused(kTiny + " " + packed + " --weights q4_0",
          "--weights: q4_0 is a format of GGUF files: OUT should end in .gguf");
  refused(kTiny + " " + packed + " --weights p4 --attention f16", "--attention: f16 is a format of GGUF files");
  refused(kTiny + " " + gguf + " --weights q4_0 --calibrate x", "--calibrate: is for P4 and P8");
  refused(kTiny + " " + gguf + " --weights import", "import is no format of a GGUF file");
  CHECK(names_in(dir).empty());
  CHECK(contains(run_program("pack --help").out, "model.gguf --weights q8_0"));
  // 24 columns are no whole block: told before anything is written.
  const std::string narrow = quoted(std::string(MIXTRAL_GOLDEN_DIR) + "/gguf/models/S_hf");
  const auto blocks = run_program("pack " + narrow + " " + gguf + " --weights q8_0");
  CHECK(blocks.status == 1);
  CHECK(contains(blocks.err, "blk.0.ffn_down_exps.weight has rows of 24 weights, Q8_0 has blocks of 32"));
  CHECK(run_program("pack " + narrow + " " + gguf + " --weights f16").status == 0);
  const std::string same = quoted(dir / "m.gguf");
  CHECK(contains(run_program("pack " + gguf + " " + same + " --weights f16").err, "is the input"));
}

TEST_CASE("pack --head none writes a file for embeddings: smaller by the head, and no command draws from it") {
  const test::TempDir dir;
  const std::string whole = quoted(dir / "whole"), headless = quoted(dir / "headless");
  REQUIRE(run_program("pack " + kTiny + " " + whole + " --weights p4 --head bf16").status == 0);
  const auto packed = run_program("pack " + kTiny + " " + headless + " --weights p4 --head none");
  CHECK(packed.status == 0);
  CHECK(packed.err.empty());
  constexpr std::uintmax_t kHead = 512 * 192 * 2;  // a multiple of 4096, in bf16
  CHECK(std::filesystem::file_size(dir / "whole") - std::filesystem::file_size(dir / "headless") >= kHead);
  CHECK(run_program("pack --verify " + headless).status == 0);
  CHECK(run_program("tokenize --model " + headless).status == 0);
  for (const std::string command : {"generate --n 1 --prompt x", "eval --ids 1,2", "inspect"}) {
    const auto refused = run_program(command + " --model " + headless);
    CHECK(refused.status == 1);
    CHECK(contains(refused.err, "headless: was packed without a head: without one it opens for embeddings alone"));
  }
  // A GGUF file's head is not imported, and one that is packed already gives no other file.
  const std::string gguf = quoted(std::string(MIXTRAL_GOLDEN_DIR) + "/gguf/models/K_q4_k_m.gguf");
  CHECK(run_program("pack " + gguf + " " + quoted(dir / "gguf") + " --weights p4 --head none").status == 0);
  CHECK(run_program("inspect --without-head --model " + quoted(dir / "gguf")).status == 0);
  CHECK(run_program("pack " + kTiny + " " + whole + " --weights none").status == 2);
  CHECK(run_program("pack " + kTiny + " " + whole + " --weights p4 --attention none").status == 2);
}
