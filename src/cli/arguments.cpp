#include "cli/arguments.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include "mixtral/core/error.hpp"

namespace mixtral::cli {
namespace {

template <class Number>
std::string expected(const Range<Number>& range) {
  return str(std::is_integral_v<Number> ? "a whole number " : "a number ", range.above ? "above " : "from ",
             range.least, range.above ? " and at most " : " to ", range.most);
}

// `name` is the option's.
template <class Number>
Number parse(const std::string& name, const std::string& text, const Range<Number>& range) {
  Number value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);  // no locale, no base but ten
  const bool whole = error == std::errc() && stop == end;
  // Written so that a NaN is outside.
  const bool inside = (range.above ? value > range.least : value >= range.least) && value <= range.most;
  if (!whole || !inside) throw CLI::ValidationError(name, str('"', text, "\" is not ", expected(range)));
  return value;
}

// An option whose texts `take` gets as they were written.
template <class Take>
CLI::Option* add_raw(CLI::App& command, const std::string& names, const std::string& description, Take take,
                     std::function<std::string()> default_text = {}) {
  return command.add_option(
      names,
      [take](const CLI::results_t& texts) {
        take(texts);
        return true;
      },
      description, false, std::move(default_text));
}

// Name without dashes in front of its short form: "-p,--prompt" is told as --prompt.
std::string long_name(const std::string& names) { return names.substr(names.find("--")); }

// As many values behind the name as there are, in place of the library's own lists, which have brackets.
CLI::Option* many(CLI::Option* option) {
  constexpr int kMany = 1 << 20;
  return option->expected(1, kMany)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

}  // namespace

template <class Number>
CLI::Option* add_number(CLI::App& command, const std::string& names, Number& value, Range<Number> range,
                        const std::string& description) {
  const auto take = [name = long_name(names), &value, range](const CLI::results_t& texts) {
    value = parse(name, texts.front(), range);
  };
  return add_raw(command, names, description, take, [&value] { return str(value); })->type_name("N");
}

template <class Number>
CLI::Option* add_numbers(CLI::App& command, const std::string& names, std::vector<Number>& values, Range<Number> range,
                         const std::string& description) {
  const auto take = [name = long_name(names), &values, range](const CLI::results_t& texts) {
    values.clear();
    for (const std::string& text : texts) {
      for (std::size_t begin = 0, end = 0; end != text.npos; begin = end + 1) {
        end = text.find(',', begin);
        values.push_back(parse(name, text.substr(begin, end - begin), range));
      }
    }
  };
  const auto default_text = [&values] {
    std::string list;
    for (const Number value : values) list += str(list.empty() ? "" : ",", value);
    return list;
  };
  return many(add_raw(command, names, description, take, default_text))->type_name("N,N...");
}

template CLI::Option* add_number(CLI::App&, const std::string&, int&, Range<int>, const std::string&);
template CLI::Option* add_number(CLI::App&, const std::string&, std::int64_t&, Range<std::int64_t>, const std::string&);
template CLI::Option* add_number(CLI::App&, const std::string&, std::uint64_t&, Range<std::uint64_t>,
                                 const std::string&);
template CLI::Option* add_number(CLI::App&, const std::string&, float&, Range<float>, const std::string&);
template CLI::Option* add_numbers(CLI::App&, const std::string&, std::vector<int>&, Range<int>, const std::string&);
template CLI::Option* add_numbers(CLI::App&, const std::string&, std::vector<std::int64_t>&, Range<std::int64_t>,
                                  const std::string&);

CLI::Option* add_texts(CLI::App& command, const std::string& name, std::vector<std::string>& values,
                       const std::string& description) {
  const auto take = [&values](const CLI::results_t& texts) { values = texts; };
  return add_raw(command, name, description, take)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("TEXT");
}

CLI::Option* add_paths(CLI::App& command, const std::string& name, std::vector<std::filesystem::path>& values,
                       const std::string& description) {
  const auto take = [&values](const CLI::results_t& texts) { values.assign(texts.begin(), texts.end()); };
  return many(add_raw(command, name, description, take))->type_name("FILE...");
}

std::vector<std::string> arguments_of(const CLI::App& program, int argc, const char* const* argv) {
  std::vector<std::string> out;
  const CLI::App* command = &program;
  bool is_value = false;
  for (int i = 1; i < argc; ++i) {
    std::string text = argv[i];
    if (std::exchange(is_value, false)) {
      out.push_back(std::move(text));
    } else if (text == "--") {
      out.insert(out.end(), argv + i, argv + argc);
      break;
    } else if (text.starts_with("--") && text.find('=') == text.size() - 1) {
      text.pop_back();
      out.insert(out.end(), {std::move(text), ""});
    } else {
      if (command == &program) {
        for (const CLI::App* other : program.get_subcommands({})) {
          if (other->check_name(text)) command = other;
        }
      }
      const CLI::Option* option = command->get_option_no_throw(text);
      is_value = option != nullptr && option->get_items_expected_min() > 0;
      out.push_back(std::move(text));
    }
  }
  return out;
}

}  // namespace mixtral::cli
