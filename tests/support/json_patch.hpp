// Small changes of a JSON document.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace mixtral::test {

// `document` with the members of `patch`; a member "-" is taken away.
inline nlohmann::json patched(nlohmann::json document, const std::string& patch) {
  const nlohmann::json changes = nlohmann::json::parse(patch);
  for (const auto& [key, value] : changes.items()) {
    if (value == "-") {
      document.erase(key);
    } else {
      document[key] = value;
    }
  }
  return document;
}

}  // namespace mixtral::test
