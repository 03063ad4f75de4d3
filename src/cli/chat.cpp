// `mixtral chat`: a conversation, in a terminal or line by line from a pipe.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <utility>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/conversation.hpp"
#include "cli/terminal.hpp"

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

class Chat {
 public:
  explicit Chat(const Options& options)
      : loaded_(load_model(options.common)), conversation_(loaded_, options.sampler, conversation_options(options)) {}

  void run() {
    if (terminal_.interactive()) {
      write_stdout(str(loaded_.path.string(), ", template ", name_of(conversation_.style()), ", ",
                       conversation_.max_positions(), " tokens of context. /help lists the commands.\n"));
    }
    while (const std::optional<std::string> line = terminal_.read_line()) {
      ++n_lines_;
      if (!take(*line)) break;
    }
    require(n_failed_ == 0 || terminal_.interactive(), "chat: ", n_failed_, " of ", n_lines_, " lines failed");
  }

 private:
  ConversationOptions conversation_options(const Options& options) const {
    std::optional<ChatStyle> style;
    for (const ChatStyle known : kChatStyles) {
      if (options.style == name_of(known)) style = known;
    }
    if (!style) tell_style();
    return {.system = options.system,
            .style = style,
            .max_tokens = options.n > 0 ? options.n : default_n(loaded_.config()),
            .kv_dtype = kv_type(options.common.kv),
            .show_progress = terminal_.interactive(),
            .stop = &Terminal::interrupted()};
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
      conversation_.reset();
    } else if (command == "/stats") {
      write_stdout(conversation_.stats());
    } else if (command == "/help") {
      write_stdout(kHelp);
    } else {
      complain(str("no command ", command, "; /help lists them, and // begins a text with a slash"));
    }
    return true;
  }

  // A failed turn is told and leaves the conversation as it was; only a lost output ends the program.
  void say(std::string text) {
    try {
      bool at_line_start = true;
      const Answer answer = conversation_.say(std::move(text), [&](std::string_view part) {
        write_stdout(part);
        at_line_start = part.ends_with('\n');
      });
      if (!terminal_.interactive() || !at_line_start) write_stdout("\n");
      explain(answer);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kIo) throw;
      complain(error.what());
    } catch (const std::bad_alloc&) {
      complain("out of memory");
    }
  }

  // Why an answer ended early.
  void explain(const Answer& answer) {
    if (answer.reason == StopReason::kContextFull) {
      note(str("the context is full: ", conversation_.n_tokens(), " of ", conversation_.max_positions(),
               " tokens; /reset begins anew"));
    } else if (answer.reason == StopReason::kMaxTokens && terminal_.interactive()) {
      note(str("ended after ", answer.n_tokens, " tokens, see --n"));
    } else if (answer.reason == StopReason::kCallback) {
      note(answer.n_tokens > 0 ? str("stopped after ", answer.n_tokens, " tokens")
                               : "stopped before the answer began; your message is forgotten");
    }
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
