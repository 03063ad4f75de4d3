#include "mixtral/runtime/session.hpp"

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>

namespace mixtral {
namespace {

Index room(const ModelConfig& config, const SessionOptions& options) {
  require(options.max_positions >= 0 && options.chunk > 0, "session: max_positions ", options.max_positions, ", chunk ",
          options.chunk);
  const Index wanted = options.max_positions > 0 ? options.max_positions : config.max_positions;
  require(wanted <= config.max_positions, "session: max_positions ", wanted, " exceeds the model's ",
          config.max_positions);
  return wanted;
}

// Of one slot. Its pages are bounded by the session's positions, not by the cache: copies of the session may hold
// pages of its making.
KvCache make_cache(const KvLayout& layout) {
  return {layout, 1,
          std::numeric_limits<Index>::max() / std::max<Index>(layout.page_bytes(), 1) / KvLayout::kPositions};
}

}  // namespace

Session::Session(const LoadedModel& model, SessionOptions options)
    : loaded_(model),
      max_positions_(room(model.config(), options)),
      chunk_(options.chunk),
      cache_(make_cache(kv_layout(model.config(), options.kv_dtype))),
      slot_(cache_.open()) {}

Session::Session(const Session& other)
    : loaded_(other.loaded_),
      max_positions_(other.max_positions_),
      chunk_(other.chunk_),
      cache_(make_cache(other.cache_.layout())),
      slot_(cache_.open()),
      tokens_(other.tokens_),
      keep_(other.keep_),
      length_(other.length_),
      kept_(other.kept_) {
  cache_.adopt(slot_, other.cache_.committed_pages(other.slot_), other.cache_.length(other.slot_));
}

// Whether `tokens` may stand behind `before` others.
void Session::require_tokens(std::span<const TokenId> tokens, Index before) const {
  require(static_cast<Index>(tokens.size()) <= max_positions_ - before, ErrorCode::kContextFull,
          "feed: ", tokens.size(), " tokens after ", before, " do not fit into a context of ", max_positions_);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    require(tokens[i] >= 0 && tokens[i] < loaded_.config().vocab_size, "feed: token ", tokens[i], " at index ", i,
            " is outside the vocabulary of ", loaded_.config().vocab_size);
  }
}

void Session::feed(std::span<const TokenId> tokens, KeepLogits keep) {
  require_tokens(tokens, static_cast<Index>(tokens_.size()));
  reserve(static_cast<Index>(tokens.size()));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  keep_.resize(tokens_.size(), keep == KeepLogits::kAll ? 1 : 0);
}

void Session::reserve(Index n) {
  const std::size_t wanted = tokens_.size() + static_cast<std::size_t>(n);
  const auto grow = [&](auto& items) {
    if (items.capacity() < wanted) items.reserve(std::max(wanted, 2 * items.capacity()));
  };
  grow(tokens_);
  grow(keep_);
}

Index Session::set_tokens(std::span<const TokenId> tokens) {
  require_tokens(tokens, 0);
  const auto n = static_cast<Index>(tokens.size());
  std::vector<TokenId> all(tokens.begin(), tokens.end());
  keep_.reserve(all.size());
  const auto computed = tokens_.begin() + length_;
  auto kept =
      static_cast<Index>(std::mismatch(tokens_.begin(), computed, all.begin(), all.end()).first - tokens_.begin());
  if (kept == n && n > 0 && logits(n - 1).empty()) --kept;
  truncate(kept);
  tokens_.swap(all);
  keep_.resize(tokens_.size(), 0);
  return kept;
}

void Session::eval(const StepHooks& hooks, const LogitsSink& all_logits) {
  const Index before = length_, end = static_cast<Index>(tokens_.size());
  if (before == end) return;
  loaded_.require_head();  // before the chunks that want no logits yet are computed
  require(!evaluating_, ErrorCode::kBusy,
          "eval: another one of this session runs, or ran when this process was forked");
  pending_.positions.clear();
  pending_.logits.clear();
  evaluating_ = true;
  try {
    for (Index begin = before; begin < end;) {
      const Index count = std::min(chunk_, end - begin);
      eval_chunk(begin, count, hooks, all_logits);
      begin += count;
    }
  } catch (...) {
    cache_.truncate(slot_, before);
    evaluating_ = false;
    throw;
  }
  evaluating_ = false;
  length_ = end;
  std::swap(kept_, pending_);
}

// Positions [begin, begin + count); leaves the logits that are wanted in pending_.
void Session::eval_chunk(Index begin, Index count, const StepHooks& hooks, const LogitsSink& all_logits) {
  positions_.resize(static_cast<std::size_t>(count));
  std::iota(positions_.begin(), positions_.end(), begin);
  slots_.assign(static_cast<std::size_t>(count), slot_);
  const auto wanted = [&](Index row) {
    const auto position = static_cast<std::size_t>(begin + row);
    return keep_[position] != 0 || position + 1 == tokens_.size();
  };

  const std::lock_guard turn(*loaded_.turns);
  const ScratchScope scope(scratch_);
  auto* rows = scratch_.take<Index>(count);
  Index n_rows = 0;
  for (Index row = 0; row < count; ++row) {
    if (all_logits || wanted(row)) rows[n_rows++] = row;
  }
  const auto logits = scratch_.matrix<float>(n_rows, loaded_.config().vocab_size);

  cache_.reserve(slot_, count);
  forward_({loaded_.table, *loaded_.executor, scratch_}, loaded_.model(),
           {.tokens = std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)),
            .positions = positions_,
            .slots = slots_,
            .logit_rows = {rows, static_cast<std::size_t>(n_rows)}},
           cache_, logits, hooks);
  if (all_logits) all_logits(begin, logits);
  for (Index i = 0; i < n_rows; ++i) {
    if (!wanted(rows[i])) continue;
    pending_.positions.push_back(begin + rows[i]);
    pending_.logits.insert(pending_.logits.end(), logits.row(i), logits.row(i) + logits.dim(1));
  }
  cache_.commit(slot_, count);
}

std::span<const float> Session::logits(Index position) const noexcept {
  const auto& positions = kept_.positions;
  const auto found = std::lower_bound(positions.begin(), positions.end(), position);
  if (found == positions.end() || *found != position) return {};
  const auto size = static_cast<std::size_t>(loaded_.config().vocab_size);
  return std::span(kept_.logits).subspan(static_cast<std::size_t>(found - positions.begin()) * size, size);
}

void Session::truncate(Index length) {
  cache_.truncate(slot_, length);
  length_ = length;
  tokens_.resize(static_cast<std::size_t>(length));
  keep_.resize(tokens_.size());
  auto& positions = kept_.positions;
  positions.erase(std::lower_bound(positions.begin(), positions.end(), length), positions.end());
  kept_.logits.resize(positions.size() * static_cast<std::size_t>(loaded_.config().vocab_size));
}

}  // namespace mixtral
