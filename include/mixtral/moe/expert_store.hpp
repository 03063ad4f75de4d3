// Where the experts' weights are: in memory, on disk, somewhere else.
#pragma once

#include <span>
#include <string>
#include <utility>

#include "mixtral/core/cancel_flag.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/moe/expert_ffn.hpp"
#include "mixtral/moe/expert_key.hpp"

namespace mixtral::moe {

// Why one expert cannot work.
class ExpertError : public Error {
 public:
  ExpertError(ErrorCode code, Index layer, const ExpertKey& key, const std::string& why)
      : Error(code, str("layer ", layer, ", expert ", key.expert,
                        key.version == kCurrentVersion ? "" : str(" (version ", key.version, ")"), ": ", why)),
        layer_(layer),
        key_(key) {}
  Index layer() const noexcept { return layer_; }
  const ExpertKey& key() const noexcept { return key_; }

 private:
  Index layer_;
  ExpertKey key_;
};

struct LeasedExpert {
  ExpertKey key;                 // as it was asked for
  const ExpertWeights* weights;  // stays as it is while the lease lives
};

// What a step still needs of a layer. Keys rise, none comes twice; there is at least one.
struct ExpertRequest {
  Index layer;
  std::span<const ExpertKey> wanted;
  std::span<LeasedExpert> room;  // [wanted], where the store writes what it gives
  const CancelFlag& cancel;      // asked by a store that waits
};

class ExpertLease;

// Hands out experts. Used by several threads at a time, if several steps share it.
class ExpertStore {
 public:
  virtual ~ExpertStore() = default;
  // Some of the wanted experts, at least one, those that are there first; who needs more asks again. May wait. Throws
  // ExpertError for an expert that cannot be had, Error(kCancelled); then nothing is leased. The step that asked fails,
  // unless its backend knows better.
  virtual ExpertLease acquire(const ExpertRequest& request) = 0;
  // These are likely to be wanted soon: a hint of whoever predicts, as an observer that applies the next routers.
  virtual void expect(Index /*layer*/, std::span<const ExpertId> /*experts*/) noexcept {}

 protected:
  // A lease on these has ended, on any thread.
  virtual void release(std::span<const LeasedExpert> /*experts*/) noexcept {}

 private:
  friend class ExpertLease;
};

// Some experts whose bytes stay where they are until it ends, whatever the store publishes meanwhile. The store must
// outlive it, and so must the request's room.
class ExpertLease {
 public:
  // `store` is told the end; null: nobody needs to know.
  explicit ExpertLease(std::span<const LeasedExpert> experts, ExpertStore* store = nullptr) noexcept
      : experts_(experts), store_(store) {}
  ~ExpertLease() {
    if (store_ != nullptr) store_->release(experts_);
  }
  ExpertLease(ExpertLease&& other) noexcept
      : experts_(std::exchange(other.experts_, {})), store_(std::exchange(other.store_, nullptr)) {}
  ExpertLease& operator=(ExpertLease other) noexcept {  // what was leased before ends here
    std::swap(experts_, other.experts_);
    std::swap(store_, other.store_);
    return *this;
  }

  std::span<const LeasedExpert> experts() const noexcept { return experts_; }

 private:
  std::span<const LeasedExpert> experts_;
  ExpertStore* store_;
};

// One layer's experts where a model keeps them, mapped or in memory: all at once, nothing is counted. They have no
// versions but the current one.
class ExpertsInMemory final : public ExpertStore {
 public:
  explicit ExpertsInMemory(std::span<const ExpertWeights> experts) noexcept : experts_(experts) {}

  ExpertLease acquire(const ExpertRequest& request) override {
    LeasedExpert* out = request.room.data();
    for (const ExpertKey& key : request.wanted) {
      if (key.version != kCurrentVersion || static_cast<std::size_t>(key.expert) >= experts_.size()) [[unlikely]] {
        throw ExpertError(ErrorCode::kNotFound, request.layer, key,
                          str("not among the ", experts_.size(), " in memory"));
      }
      *out++ = {key, &experts_[static_cast<std::size_t>(key.expert)]};
    }
    return ExpertLease(request.room.first(request.wanted.size()));
  }

 private:
  std::span<const ExpertWeights> experts_;
};

}  // namespace mixtral::moe
