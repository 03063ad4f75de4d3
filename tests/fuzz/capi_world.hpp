// The models and contexts that all sequences of C ABI calls share, and what a session must come to.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "mixtral.h"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "support/temp_dir.hpp"

namespace mixtral::fuzz {

class World {
 public:
  // `run` and `log` are the callbacks of the ctxs that have one, with `user`.
  World(mixtral_run_fn run, mixtral_log_fn log, void* user);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // The same weights on one thread, on two, on the host's, without a head, and without a tokenizer.
  std::span<mixtral_ctx* const> ctxs() const noexcept { return ctxs_; }
  bool has_head(const mixtral_ctx* ctx) const noexcept { return ctx != ctxs_[3]; }
  bool has_tokenizer(const mixtral_ctx* ctx) const noexcept { return ctx != ctxs_[4]; }

  // Directories to open, good and bad.
  struct Place {
    std::string path;
    mixtral_status status;       // of mixtral_ctx_create()
    bool lacks_head = false;     // then only without one it opens
    bool has_tokenizer = false;  // if it opens
  };
  const std::vector<Place>& places() const noexcept { return places_; }

  // Logits of the last of these tokens, computed at once by a session that nothing else has happened to.
  std::vector<float> reference(std::span<const std::int32_t> tokens, std::int32_t kv_type) const;
  std::size_t vocab_size() const noexcept { return static_cast<std::size_t>(opened_->config().vocab_size); }

 private:
  test::TempDir dir_;
  std::vector<Place> places_;
  SerialExecutor serial_;
  std::optional<LoadedModel> opened_;
  std::array<mixtral_ctx*, 5> ctxs_{};
};

}  // namespace mixtral::fuzz
