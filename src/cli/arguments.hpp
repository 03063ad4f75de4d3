// Arguments taken as they are written. Left to itself, the command-line library reads 010 as eight, takes the largest
// number for one that is larger, drops what is empty in a list, takes a text in brackets for a list, and for the value
// of "--name=" the next argument.
#pragma once

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mixtral::cli {

template <class Number>
struct Range {
  Number least = 0, most = std::numeric_limits<Number>::max();
  bool above = false;  // `least` itself is outside
};

// Adds an option with a number in decimal digits; a float may have a fraction and an exponent. Anything else, spaces
// and signs of plus too, is bad usage, told with the text and the range. For int, Index, std::uint64_t and float.
// `value` must outlive the parsing; so it is below.
template <class Number>
CLI::Option* add_number(CLI::App& command, const std::string& names, Number& value, Range<Number> range,
                        const std::string& description);

// A list "1,2,3" of at least one number. Of lists given one after the other the numbers follow each other; what
// `values` held before is its default.
template <class Number>
CLI::Option* add_numbers(CLI::App& command, const std::string& names, std::vector<Number>& values, Range<Number> range,
                         const std::string& description);

// An option that may be given several times, with a text each time.
CLI::Option* add_texts(CLI::App& command, const std::string& name, std::vector<std::string>& values,
                       const std::string& description);

// An option with one path or several behind it.
CLI::Option* add_paths(CLI::App& command, const std::string& name, std::vector<std::filesystem::path>& values,
                       const std::string& description);

// The arguments without the program's name, for a program whose options are all added.
std::vector<std::string> arguments_of(const CLI::App& program, int argc, const char* const* argv);

}  // namespace mixtral::cli
