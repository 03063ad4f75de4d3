#include "mixtral/io/check_weights.hpp"

#include <algorithm>
#include <mutex>

#include "io/finite.hpp"

namespace mixtral {
namespace {

// Rows of one tensor, and what was found there.
struct Piece {
  std::size_t tensor;
  const MatrixView* w;
  Index begin, end;
  NonFinite found{};
};

Index bytes_of(const Piece& piece) { return (piece.end - piece.begin) * piece.w->row_bytes; }

}  // namespace

std::vector<NonFiniteTensor> check_weights(const Model& model, Executor& executor,
                                           const std::function<void(Index done, Index all)>& progress) {
  constexpr Index kPieceBytes = Index{1} << 20;
  std::vector<TensorSlot> slots;
  std::vector<Piece> pieces;
  Index all = 0, done = 0;
  for_each_tensor(model.config, [&](const TensorSlot& slot, const Shape<2>&) {
    const MatrixView& w = model.weights.at(slot);
    require(w.data != nullptr, slot_name(slot), ": no weights are there, of headers alone");
    const Index step = w.row_step();
    const Index rows = std::max<Index>(kPieceBytes / std::max<Index>(step * w.row_bytes, 1), 1) * step;
    for (Index r = 0; r < w.rows; r += rows) {
      pieces.push_back({slots.size(), &w, r, std::min(r + rows, w.rows)});
      all += bytes_of(pieces.back());
    }
    slots.push_back(slot);
  });

  std::mutex mutex;
  executor.parallel_for(static_cast<Index>(pieces.size()), [&](Index i, int) {
    Piece& piece = pieces[static_cast<std::size_t>(i)];
    piece.found = find_non_finite(*piece.w, piece.begin, piece.end);
    const std::lock_guard lock(mutex);
    done += bytes_of(piece);
    if (progress) progress(done, all);
  });

  std::vector<NonFiniteTensor> out;
  std::size_t last = slots.size();  // the tensor of out.back()
  for (const Piece& piece : pieces) {
    const auto& [count, row, col, value] = piece.found;
    if (count == 0) continue;
    if (piece.tensor != last) out.push_back({slot_name(slots[piece.tensor]), 0, row, col, value});
    out.back().count += count;
    last = piece.tensor;
  }
  return out;
}

}  // namespace mixtral
