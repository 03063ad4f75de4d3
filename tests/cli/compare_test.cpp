#include <doctest/doctest.h>

#include <cmath>

#include "support/coarse_model.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"
#include "support/small_checkpoint.hpp"
#include "support/xml.hpp"

using namespace mixtral;
using nlohmann::json;
using test::Answer;
using test::contains;
using test::quoted;
using test::run_program;

namespace {

// A small model, its coarse copy, and two texts.
struct Files {
  Files() {
    const Vocabulary v = test::small_checkpoint_vocabulary(true);
    const test::RandomModel random(test::small_checkpoint_config(v.size()));
    const test::CoarseModel copy(random.model, 3);
    write("fine", random.model, v);
    write("coarse", copy.model, v);
    std::string text;
    for (int i = 0; i < 30; ++i) text += str("ab a", i, " [b]\n");
    test::write_text(dir / "text", text);
    test::write_text(dir / kOddName, "abab");
  }
  void write(const std::string& name, const Model& model, const Vocabulary& v) const {
    write_huggingface(dir / name, model.config, model.weights);
    test::write_text(dir / name / "tokenizer.model", test::sentencepiece_model_bytes(v));
  }
  std::string operator[](const std::string& name) const { return str(" ", quoted(dir / name)); }
  std::string models(const std::string& model = "coarse") const {
    return "compare --model" + (*this)[model] + " --reference" + (*this)["fine"];
  }

  static constexpr const char* kOddName = "<b>&'\"\x01\xFF";
  test::TempDir dir;
};

const Files& files() {
  static const Files all;
  return all;
}

std::string read_page(const std::string& name) {
  const std::string page = read_file(files().dir / name, Index{1} << 24);
  const std::string text = test::checked_xml(page);
  for (const char* never : {"nan", "NaN", "inf ", "\"inf", "-0<", "http"}) CHECK_FALSE(contains(page, never));
  for (const char* title : {"Gating stability per layer", "KL divergence over the context", "Router margins",
                            "How large the KL divergence is", "Routing per layer", "What was compared"}) {
    CHECK(contains(text, title));
  }
  return page;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("compare --json gives each figure, with the cross-entropies of eval") {
  const Answer answer = run_program(files().models() + " --json --text" + files()["text"]);
  CHECK(answer.status == 0);
  CHECK(answer.err.empty());
  const json got = json::parse(answer.out);
  for (const std::string name : {"model", "reference"}) {
    const std::string dir = name == "model" ? "coarse" : "fine";
    const json eval = json::parse(run_program("eval --json --model" + files()[dir] + " --text" + files()["text"]).out);
    CHECK(got.at("inputs") == eval.at("seq_len"));
    CHECK(got.at("targets") == eval.at("targets"));
    const double cross_entropy = eval.at("cross_entropy").get<double>();
    CHECK(got.at("cross_entropy").at(name).get<double>() == doctest::Approx(cross_entropy).epsilon(1e-12));
    CHECK(got.at("perplexity").at(name).get<double>() == doctest::Approx(std::exp(cross_entropy)));
    CHECK(got.at(name).at("path") == (files().dir / dir).string());
  }
  CHECK(got.at("model").at("formats").at("experts") == "F32");
  CHECK(got.at("reference").at("formats").size() == 6);
  const json& kl = got.at("kl");
  CHECK(kl.at("mean") > 0);
  CHECK(kl.at("median") <= kl.at("p99"));
  CHECK(kl.at("p99") <= kl.at("max"));
  CHECK(kl.at("n") == got.at("targets"));
  CHECK(got.at("top1_agreement") > 0);
  CHECK(got.at("top1_agreement") < 1);
  CHECK(got.at("context") == 40);
  CHECK(got.at("kl_by_position").size() <= 16);
  CHECK(got.at("kl_by_position").back().at("end") == 40);
  CHECK(got.at("layers").size() == 2);
  const json& gating = got.at("gating");
  CHECK(gating.at("decisions").get<Index>() == 2 * got.at("inputs").get<Index>());
  CHECK(gating.at("same_set") < 1);
  CHECK(gating.at("same_first") < 1);
  CHECK(gating.at("margin_where_differing").at("median") < gating.at("margin_where_same").at("median"));
}

TEST_CASE("compare of a model with itself finds no difference, on paper as in figures") {
  const std::string run = files().models("fine") + " --text" + files()["text"];
  const json got = json::parse(run_program(run + " --json --report" + files()["same.html"]).out);
  CHECK(got.at("kl").at("max") == 0);
  CHECK(got.at("top1_agreement") == 1);
  CHECK(got.at("gating").at("same_set") == 1);
  CHECK(got.at("gating").at("same_first") == 1);
  CHECK(got.at("gating").at("margin_where_differing").is_null());
  CHECK(got.at("perplexity").at("ratio") == 1);
  const std::string page = read_page("same.html");
  CHECK(contains(page, "No difference."));
  CHECK(contains(page, "None differ"));
  CHECK(contains(run_program(run).out, "100 %"));
}

TEST_CASE("compare --resident gives the same figures") {
  const std::string run = files().models() + " --json --text" + files()["text"];
  const Answer mapped = run_program(run), resident = run_program(run + " --resident");
  CHECK(resident.status == 0);
  CHECK(resident.out == mapped.out);
}

TEST_CASE("compare --report writes a page that stands alone, and names of files cannot break it") {
  const Answer answer = run_program(files().models() + " --report" + files()["page.html"] + " --text" +
                                    files()["text"] + files()[Files::kOddName]);
  CHECK(answer.status == 0);
  for (const char* part : {"cross-entropy", "perplexity", "KL divergence", "same likeliest token", "gating", "all"}) {
    CHECK(contains(answer.out, part));
  }
  const std::string page = read_page("page.html");
  CHECK(count(page, "<svg ") == 4);
  CHECK(contains(page, "coarse compared with fine"));
  CHECK(contains(page, "&lt;b&gt;&amp;&#39;&quot;\xEF\xBF\xBD\xEF\xBF\xBD: "));
  for (const char* never : {"<script", "src=", "url(", "@import", "href="}) CHECK_FALSE(contains(page, never));
  const json got = json::parse(run_program(files().models() + " --json --text" + files()[Files::kOddName]).out);
  CHECK(got.at("texts").at(0).at("file").get<std::string>().ends_with("\x01\xEF\xBF\xBD"));
}

TEST_CASE("compare --max-tokens reads the beginning of each file, down to one token") {
  for (const Index n : {1, 39, 41}) {
    CAPTURE(n);
    const Answer answer = run_program(files().models() + " --json --text" + files()["text"] + files()["text"] +
                                      " --report" + files()["short.html"] + str(" --max-tokens ", n));
    const json got = json::parse(answer.out);
    CHECK(got.at("targets") == 2 * n);
    CHECK(got.at("texts").at(1).at("targets") == n);
    read_page("short.html");
  }
}

TEST_CASE("compare prints the same with every number of threads and on every instruction set") {
  const std::string run = files().models() + " --text" + files()["text"];
  const Answer want = run_program(run + " --threads 1");
  CHECK(run_program(run + " --threads 2").out == want.out);
  CHECK(run_program(run + " --isa reference").out == want.out);
}

TEST_CASE("compare needs a reference, a text and numbers that make sense") {
  const std::string fine = " --reference" + files()["fine"], text = " --text" + files()["text"];
  const struct {
    std::string arguments, message;
  } cases[] = {
      {"compare" + text, "--reference"},
      {"compare" + fine, "--text"},
      {"compare" + fine + " --text", "--text"},
      {"compare" + fine + text + " --max-tokens 0", "--max-tokens"},
      {"compare" + fine + text + " --max-tokens x", "--max-tokens"},
      {"compare" + fine + text + " --threads 0", "--threads"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.arguments);
    const Answer answer = run_program(c.arguments);
    CHECK(answer.status == 2);
    CHECK_MESSAGE(contains(answer.err, c.message), answer.err);
    CHECK(answer.out.empty());
  }
}

TEST_CASE("compare says what it cannot read, write or compare") {
  const test::TempDir dir;
  test::write_text(dir / "empty", "");
  Vocabulary v = test::small_checkpoint_vocabulary(true);
  const test::RandomModel random(test::small_checkpoint_config(v.size()));
  std::swap(v.pieces[6], v.pieces[7]);
  files().write("swapped", random.model, v);
  v.pieces.resize(6);
  v.types.resize(6);
  v.scores.resize(6);
  files().write("fewer", random.model, v);
  ModelConfig deeper = random.model.config;
  deeper.n_layers = 3;
  files().write("deeper", test::RandomModel(deeper).model, test::small_checkpoint_vocabulary(true));
  const std::string text = " --text" + files()["text"];
  const struct {
    std::string arguments, message;
  } cases[] = {
      {files().models() + " --text /no/such/text", "/no/such/text"},
      {files().models() + " --text " + quoted(dir / "empty"), "empty"},
      {"compare --reference /no/such/model" + text, "/no/such/model"},
      {"compare --model /no/such/model --reference" + files()["fine"] + text, "/no/such/model"},
      {files().models() + text + " --report /no/such/dir/page.html", "/no/such/dir/page.html"},
      {files().models() + text + " --report " + quoted(dir.path()), "not a regular file"},
      {files().models("swapped") + text, "differ: piece 6"},
      {files().models("fewer") + text, "pieces"},
      {files().models("deeper") + text, "the model has n_layers 3, the reference 2"},
      {"compare --reference " + quoted(test::golden_dir() / "models/A") + " --model " +
           quoted(test::golden_dir() / "models/A") + text,
       "no tokenizer"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.arguments);
    const Answer answer = run_program(c.arguments);
    CHECK(answer.status == 1);
    CHECK_MESSAGE(contains(answer.err, c.message), answer.err);
    CHECK(answer.out.empty());
  }
}

TEST_CASE("compare reads with the tokenizer of either model") {
  const std::string run = " --json --text" + files()["text"];
  const std::string want = run_program(files().models() + run).out;
  const test::TempDir dir;
  test::write_dir(dir.path(), test::read_dir(files().dir / "fine"));
  std::filesystem::remove(dir / "tokenizer.model");
  const Answer got = run_program("compare --model" + files()["coarse"] + " --reference " + quoted(dir.path()) + run);
  CHECK(got.status == 0);
  CHECK(json::parse(got.out).at("kl") == json::parse(want).at("kl"));
}
