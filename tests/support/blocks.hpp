// Golden blocks: tests/golden/blocks with the tolerances of the manifest.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "support/compare.hpp"
#include "support/golden.hpp"

namespace mixtral::test {

class Block {
 public:
  explicit Block(const std::string& name) : file_(golden_dir() / "blocks" / (name + ".safetensors")) {}

  // All dimensions but the last are rows.
  template <class T = float>
  Matrix<T> matrix(const std::string& name) const {
    const std::vector<Index>& shape = file_.at(name).shape;
    const auto values = elements<T>(file_, name);
    const Index cols = shape.back(), rows = static_cast<Index>(values.size()) / cols;
    Matrix<T> out(Shape<2>{{rows, cols}});
    std::copy(values.begin(), values.end(), out.data());
    return out;
  }

 private:
  SafetensorsFile file_;
};

// The manifest's "block_output": atol = 1e-5 * the largest |want|.
inline Budget block_output(const Matrix<float>& want) {
  static const double share =
      read_json(golden_dir() / "manifest.json")["tolerances"]["block_output"]["atol_times_max_abs"];
  double largest = 0;
  for (const float x : want.span()) largest = std::max(largest, std::abs(static_cast<double>(x)));
  return {"golden block_output", share * largest, 0};
}

}  // namespace mixtral::test
