#include "support/tables.hpp"

#include "mixtral/ops/native_table.hpp"

namespace mixtral::test {

// Instantiated here alone: in every test file it would dominate the time to compile.
const KernelTable& header_table() noexcept { return native_table(); }

}  // namespace mixtral::test
