#include "mixtral/runtime/session.hpp"

#include <algorithm>
#include <numeric>

namespace mixtral {
namespace {

Index room(const Model& model, const SessionOptions& options) {
  require(options.max_positions >= 0 && options.chunk > 0, "session: max_positions ", options.max_positions, ", chunk ",
          options.chunk);
  const Index wanted = options.max_positions > 0 ? options.max_positions : model.config.max_positions;
  require(wanted <= model.config.max_positions, "session: max_positions ", wanted, " exceeds the model's ",
          model.config.max_positions);
  return wanted;
}

}  // namespace

Session::Session(const Model& model, const KernelTable& table, Executor& executor, SessionOptions options)
    : model_(model),
      table_(table),
      executor_(executor),
      max_positions_(room(model, options)),
      chunk_(options.chunk),
      cache_(kv_layout(model.config), 1, (max_positions_ + KvLayout::kPositions - 1) / KvLayout::kPositions),
      slot_(cache_.open()) {}

void Session::feed(std::span<const TokenId> tokens) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    require(tokens[i] >= 0 && tokens[i] < model_.config.vocab_size, "feed: token ", tokens[i], " at index ", i,
            " is outside the vocabulary of ", model_.config.vocab_size);
  }
  const Index n = static_cast<Index>(tokens_.size() + tokens.size());
  require(n <= max_positions_, ErrorCode::kContextFull, "feed: ", tokens.size(), " tokens after ", tokens_.size(),
          " do not fit into a context of ", max_positions_);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void Session::eval(ForwardObserver* observer, const LogitsSink& all_logits) {
  const Index before = length(), end = static_cast<Index>(tokens_.size());
  try {
    for (Index begin = before; begin < end; begin += chunk_) {
      eval_chunk(begin, std::min(chunk_, end - begin), observer, all_logits);
    }
  } catch (...) {
    cache_.truncate(slot_, before);
    throw;
  }
  if (end > before) logits_.swap(pending_logits_);
}

// Positions [begin, begin + count); the last chunk leaves its last row in pending_logits_.
void Session::eval_chunk(Index begin, Index count, ForwardObserver* observer, const LogitsSink& all_logits) {
  const Index vocab_size = model_.config.vocab_size;
  const bool last = begin + count == static_cast<Index>(tokens_.size());
  positions_.resize(static_cast<std::size_t>(count));
  std::iota(positions_.begin(), positions_.end(), begin);
  slots_.assign(static_cast<std::size_t>(count), slot_);

  const ScratchScope scope(scratch_);
  const Index n_logits = all_logits ? count : (last ? 1 : 0);
  auto* rows = scratch_.take<Index>(n_logits);
  std::iota(rows, rows + n_logits, count - n_logits);
  const auto logits = scratch_.matrix<float>(n_logits, vocab_size);

  cache_.reserve(slot_, count);
  forward_({table_, executor_, scratch_}, model_,
           {.tokens = std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)),
            .positions = positions_,
            .slots = slots_,
            .logit_rows = {rows, static_cast<std::size_t>(n_logits)}},
           cache_, logits, observer);
  if (all_logits) all_logits(begin, logits);
  if (last) {
    const auto row = logits.row_span(n_logits - 1);
    pending_logits_.assign(row.begin(), row.end());
  }
  cache_.commit(slot_, count);
}

void Session::truncate(Index length) {
  cache_.truncate(slot_, length);
  tokens_.resize(static_cast<std::size_t>(length));
  logits_.clear();
}

}  // namespace mixtral
