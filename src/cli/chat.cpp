// `mixtral chat`: a conversation, in a terminal or line by line from a pipe.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <utility>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/loaded_model.hpp"
#include "cli/terminal.hpp"
#include "mixtral/runtime/conversation.hpp"
#include "mixtral/runtime/routing_stats.hpp"
#include "report/numbers.hpp"
#include "report/routing_tables.hpp"

namespace mixtral::cli {
namespace {

constexpr const char* kHelp =
    "/reset  begin a new conversation\n"
    "/stats  tokens, speed, and which experts worked\n"
    "/help   this text\n"
    "/exit   the end, as the end of the input is\n"
    "A text that begins with a slash is written with two: //etc. In a terminal, a\n"
    "backslash at the end of a line goes on in the next one, and Ctrl-C stops an\n"
    "answer or clears the line.\n";

struct Options {
  CommonOptions common;
  std::string system, style;  // a style's name; empty: the model's own
  Index n = 0;
  SamplerOptions sampler;
};

// A short context has room for some turns, too.
Index default_n(const ModelConfig& config) { return std::clamp<Index>(config.max_positions / 4, 1, 1024); }

// Of an answer.
struct Figures {
  Index context = 0, kept = 0, computed = 0, drawn = 0;  // tokens
  double prompt_seconds = 0, answer_seconds = 0;         // until the first token; from the first to the last
};

std::string per_second(Index tokens, double duration) {
  return duration > 0 ? str(", ", report::fixed(static_cast<double>(tokens) / duration, 1), " tokens/s") : "";
}

class Chat {
 public:
  explicit Chat(const Options& options)
      : loaded_(load_model(options.common)),
        conversation_(loaded_, {.style = style_of(options)}),
        session_(loaded_, {.kv_dtype = kv_type(options.common.kv)}),
        sampler_(options.sampler),
        routing_(loaded_.config()),
        max_tokens_(options.n > 0 ? options.n : default_n(loaded_.config())) {
    conversation_.add({ChatRole::kSystem, options.system});
  }

  void run() {
    if (terminal_.interactive()) {
      write_stdout(str(loaded_.path.string(), ", template ", name_of(conversation_.style()), ", ",
                       session_.max_positions(), " tokens of context. /help lists the commands.\n"));
    }
    while (const std::optional<std::string> line = terminal_.read_line()) {
      ++n_lines_;
      if (!take(*line)) break;
    }
    require(n_failed_ == 0 || terminal_.interactive(), "chat: ", n_failed_, " of ", n_lines_, " lines failed");
  }

 private:
  std::optional<ChatStyle> style_of(const Options& options) const {
    for (const ChatStyle known : kChatStyles) {
      if (options.style == name_of(known)) return known;
    }
    tell_style();
    return {};
  }

  // What the model's own template says needs no words, unless it is not one of Mistral's.
  void tell_style() const {
    const auto [style, why] = loaded_.chat_style();
    if (loaded_.chat_template && style != ChatStyle::kChatMl) return;
    write_message(str("mixtral: style ", name_of(style), ": ", why));
  }

  // False: the end is wanted.
  bool take(std::string line) {
    const std::size_t end = line.find_last_not_of(" \t\n");
    if (end == line.npos) return true;
    if (line[0] != '/') {
      say(std::move(line));
    } else if (line.starts_with("//")) {
      say(line.substr(1));
    } else {
      return obey(line.substr(0, end + 1));
    }
    return true;
  }

  bool obey(const std::string& command) {
    if (command == "/exit") return false;
    if (command == "/reset") {
      reset();
    } else if (command == "/stats") {
      write_stdout(stats());
    } else if (command == "/help") {
      write_stdout(kHelp);
    } else {
      complain(str("no command ", command, "; /help lists them, and // begins a text with a slash"));
    }
    return true;
  }

  // No turns, the random numbers from the seed. What is computed of a system text at the front is kept.
  void reset() {
    conversation_.keep(1);
    sampler_.restart();
    routing_.reset();
    last_ = {};
  }

  // A failed turn is told and leaves the conversation as it was; only a lost output ends the program.
  void say(std::string text) {
    try {
      answer(std::move(text));
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kIo) throw;
      const bool full = error.code() == ErrorCode::kContextFull && conversation_.messages().size() > 1;
      complain(str(error.what(), full ? "; /reset begins anew" : ""));
    } catch (const std::bad_alloc&) {
      complain("out of memory");
    }
  }

  void answer(std::string text) {
    Figures figures;
    PromptProgress progress(session_, terminal_.interactive());
    Observers observers{&routing_, &progress};
    StepHooks hooks(&observers);
    hooks.cancel = &Terminal::interrupted();
    const double begin = seconds();
    bool at_line_start = true, at_answer_start = true;
    GenerateOptions settings;
    settings.max_tokens = max_tokens_;
    settings.on_token = [&](TokenId id, std::string_view part) {
      const double since_begin = seconds() - begin;
      if (std::exchange(at_answer_start, false)) {
        progress.end();
        figures = {.kept = progress.kept(), .computed = progress.computed(), .prompt_seconds = since_begin};
      }
      if (id >= 0) ++figures.drawn;
      figures.answer_seconds = since_begin - figures.prompt_seconds;
      figures.context = static_cast<Index>(session_.tokens().size());
      last_ = figures;
      write_stdout(part);
      if (!part.empty()) at_line_start = part.ends_with('\n');
      return !Terminal::interrupted().is_set();
    };
    StopReason reason = StopReason::kCallback;
    try {
      reason = conversation_.say(session_, sampler_, std::move(text), settings, hooks).reason;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kCancelled) throw;
    }
    progress.end();
    if (!terminal_.interactive() || !at_line_start) write_stdout("\n");
    explain(reason, figures.drawn);
  }

  // Why an answer ended early.
  void explain(StopReason reason, Index n_tokens) {
    if (reason == StopReason::kContextFull) {
      note(
          str("the context is full: ", last_.context, " of ", session_.max_positions(), " tokens; /reset begins anew"));
    } else if (reason == StopReason::kMaxTokens && terminal_.interactive()) {
      note(str("ended after ", n_tokens, " tokens, see --n"));
    } else if (reason == StopReason::kCallback) {
      note(n_tokens > 0 ? str("stopped after ", n_tokens, " tokens")
                        : "stopped before the answer began; your message is forgotten");
    }
  }

  // Tokens of the context; speed and kept tokens of the last turn; each expert's share of the conversation.
  std::string stats() const {
    std::string out = str("context      ", last_.context, " of ", session_.max_positions(), " tokens\n");
    if (last_.drawn == 0) return out + "no answer yet\n";
    out += str("last prompt  ", last_.kept + last_.computed, " tokens: ", last_.kept, " kept, ", last_.computed,
               " computed", per_second(last_.computed, last_.prompt_seconds), "\n");
    out += str("last answer  ", last_.drawn, " tokens", per_second(last_.drawn - 1, last_.answer_seconds), "\n");
    return out + report::routes_text(routing_);
  }

  void complain(const std::string& text) {
    ++n_failed_;
    note(text);
  }

  void note(const std::string& text) const {
    const std::string where = terminal_.interactive() ? "(" : str("mixtral: line ", n_lines_, ": ");
    write_message(str(where, text, terminal_.interactive() ? ")" : ""));
  }

  LoadedModel loaded_;
  Terminal terminal_;
  Conversation conversation_;
  Session session_;
  Sampler sampler_;
  RoutingStats routing_;
  Index max_tokens_;
  Figures last_;
  Index n_lines_ = 0, n_failed_ = 0;
};

}  // namespace

void add_chat(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("chat", "Talk to an Instruct model; each line of a pipe is one message");
  command->footer("Example: mixtral chat --model DIR --system \"Answer briefly.\"");
  add_model_options(*command, options->common);
  add_kv_option(*command, options->common);
  command->add_option("--system", options->system, "Instructions that stand before the conversation");
  command
      ->add_option(
          "--template", options->style,
          "v1: as Mixtral 8x7B Instruct; v3: as 8x22B Instruct; chatml: <|im_start|> and <|im_end|> (default: as "
          "the model's chat_template is; without one v3 if [INST] is a control token, otherwise v1)")
      ->check(CLI::IsMember({"v1", "v3", "chatml"}));
  add_number(*command, "-n,--n", options->n, {1},
             "Most tokens of an answer (default: a quarter of the context, at most 1024)");
  add_sampling_options(*command, options->sampler);
  command->callback([options] { Chat(*options).run(); });
}

}  // namespace mixtral::cli
