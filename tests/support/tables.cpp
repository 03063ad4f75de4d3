#include "support/tables.hpp"

#include "mixtral/ops/native_table.hpp"

namespace mixtral::test {

const KernelTable& shared_native_table() noexcept { return native_table(); }

}  // namespace mixtral::test
