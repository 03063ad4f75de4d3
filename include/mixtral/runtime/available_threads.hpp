// How many threads this process may keep busy.
#pragma once

namespace mixtral {

// The CPUs of the process's affinity mask, or fewer where a control group grants less CPU time. At least 1.
int available_threads();

}  // namespace mixtral
