// Weights from the types of GGUF into those that the kernels read.
#pragma once

#include <memory>

#include "io/gguf_files.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/ops/context.hpp"

namespace mixtral {

// All weights as float32 in `out`, float_bytes() of it, by all workers. What was read is given back to the system.
MatrixView dequantized(const GgufMatrix& m, Executor& executor, std::byte* out);

// Looks at dense matrices where they lie; the others become packed ones in memory, P4 or P8, whichever is nearer in
// bytes (w1 and w3 of an expert together), or, as the options say, float32. The embedding, the router and vectors are
// never packed. `files` stay open as long as the weights. Sets Checkpoint::mapped if all are dense.
void import_weights(const std::shared_ptr<const GgufFiles>& files, const OpContext& ctx, QuantizedImport import,
                    Checkpoint& out);

}  // namespace mixtral
