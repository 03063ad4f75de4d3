// Writes pieces of a file one after the other, each while the next one is made; without a thread for it, before.
#pragma once

#include <cstddef>
#include <future>

#include "mixtral/core/arena.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/worker_thread.hpp"

namespace mixtral {

class OverlappedWriter {
 public:
  // Memory for two pieces. `file` must outlive this.
  OverlappedWriter(AtomicFileWriter& file, Index most_bytes)
      : file_(file), rooms_{Arena(most_bytes), Arena(most_bytes)} {}

  // Where the next piece is to be made.
  std::byte* room() noexcept { return rooms_[turn_].data(); }
  // Begins to write what was made there. Throws what AtomicFileWriter::write() threw about the piece before.
  void write(Index bytes) {
    finish();
    const detail::SignalsBlocked blocked;  // a thread of our own takes none
    writing_ = std::async(std::launch::async | std::launch::deferred, [this, from = room(), bytes] {
      file_.write({from, static_cast<std::size_t>(bytes)});
    });
    turn_ = 1 - turn_;
  }
  // When it returns, all is written.
  void finish() {
    if (writing_.valid()) writing_.get();
  }

 private:
  AtomicFileWriter& file_;
  const Arena rooms_[2];
  std::size_t turn_ = 0;
  std::future<void> writing_;  // the first to be destroyed: it waits
};

}  // namespace mixtral
