// Tensors: one type that owns, one that looks; shapes are checked with errors that name the numbers.
#include "mixtral/core/tensor.hpp"

#include <algorithm>
#include <cstdio>

#include "mixtral/core/error.hpp"

using namespace mixtral;

int main() {
  Tensor<float, 2> owner(Shape<2>{{3, 4}});  // zero at first, 64-byte aligned
  owner.row(1)[2] = 5.0f;

  // Your own memory, without a copy: here rows of 4 that lie 6 apart.
  float host[18] = {};
  const TensorView<float, 2> view(host, Shape<2>{{3, 4}}, /*row_stride=*/6);
  for (Index r = 0; r < view.dim(0); ++r) std::copy_n(owner.row(r), view.dim(1), view.row(r));

  const TensorView<float, 2> tail = view.rows(1, 2);
  std::printf("tail is %s, its element [0, 2] is %g, host[8] is %g\n", shape_text(tail.shape()).c_str(),
              static_cast<double>(tail.row(0)[2]), static_cast<double>(host[8]));

  try {
    const Tensor<float, 2> impossible(Shape<2>{{3, -4}});
  } catch (const Error& error) {
    std::printf("error: %s\n", error.what());
    return tail.row(0)[2] == 5.0f && host[8] == 5.0f ? 0 : 1;
  }
  return 1;
}
