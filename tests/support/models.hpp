// Small random models, a host that runs them step by step, and the forward pass in double.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "mixtral/model/transformer.hpp"
#include "support/experts.hpp"
#include "support/tables.hpp"

namespace mixtral::test {

inline ModelConfig small_config() {
  ModelConfig c;
  c.dim = 32;
  c.hidden_dim = 48;
  c.n_layers = 2;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 8;
  c.n_experts = 8;
  c.n_experts_per_tok = 2;
  c.vocab_size = 50;
  c.max_positions = 256;
  return c;
}

// Weights of mixed types that keep activations near 1.
struct RandomModel {
  explicit RandomModel(const ModelConfig& config, std::uint64_t seed = 81) : model{config, Weights(config)} {
    config.validate();
    Random random(seed);
    constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
    for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
      const bool wide = is_vector(slot.kind) || slot.kind == TensorKind::kEmbedding;
      const double scale = wide ? 1.5 : 1.7 / std::sqrt(static_cast<double>(shape[1]));
      model.weights.at(slot) = store.add(random, kTypes[random.index(0, 2)], shape[0], shape[1], scale);
    });
    validate(model.weights, config);
  }
  Store store;
  Model model;
};

// The same weights packed: experts as `experts`, attention and head as `rest`; embedding, norms and router stay.
struct PackedModel {
  PackedModel(const Model& dense, DType experts, DType rest) : model(dense) {
    const KernelTable table = reference_table();
    SerialExecutor serial;
    Scratch scratch;
    const OpContext op{table, serial, scratch};
    for (LayerWeights& layer : model.weights.layers) {
      for (MatrixView* w : {&layer.wq, &layer.wk, &layer.wv, &layer.wo}) *w = store.add(op, *w, rest);
      for (moe::ExpertWeights& expert : layer.experts) expert = store.add(op, expert, experts);
    }
    if (!model.config.tied_embeddings) model.weights.head = store.add(op, model.weights.head, rest);
    validate(model.weights, model.config);
  }
  PackedStore store;
  Model model;
};

inline std::vector<TokenId> random_tokens(Random& random, Index n, const ModelConfig& config) {
  std::vector<TokenId> out(static_cast<std::size_t>(n));
  for (TokenId& id : out) id = static_cast<TokenId>(random.index(0, config.vocab_size - 1));
  return out;
}

// Logits of seven tokens of one sequence, a prompt and then one by one.
inline std::vector<float> logits_of(const OpContext& ctx, const Model& model, const StepHooks& hooks,
                                    const RoutingIdentity* identity = nullptr) {
  const std::vector<TokenId> tokens = {4, 9, 7, 1, 30, 2, 11};
  KvCache cache(kv_layout(model.config, DType::kBF16), 1, 4);
  const SlotId slot = cache.open();
  Forward forward;
  std::vector<float> all;
  for (const auto& [begin, n] : {std::pair<Index, Index>{0, 5}, {5, 1}, {6, 1}}) {
    std::vector<Index> positions, wanted = {n - 1};
    for (Index p = begin; p < begin + n; ++p) positions.push_back(p);
    const std::vector<SlotId> slots(static_cast<std::size_t>(n), slot);
    const std::vector<const RoutingIdentity*> identities(static_cast<std::size_t>(n), identity);
    Matrix<float> logits(Shape<2>{{1, model.config.vocab_size}});
    cache.reserve(slot, n);
    forward(ctx, model,
            {std::span(tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)), positions, slots,
             wanted, identities},
            cache, logits.view(), hooks);
    cache.commit(slot, n);
    all.insert(all.end(), logits.data(), logits.data() + logits.size());
  }
  return all;
}

// ---- the oracle ------------------------------------------------------------------------------------------

inline Matrix<double> linear_oracle(const MatrixView& w, const Matrix<double>& x) {
  Matrix<double> y(Shape<2>{{x.dim(0), w.rows}});
  const auto wide = in_double(w);
  reference::linear(wide.cview(), x.cview(), y.view());
  return y;
}
inline Matrix<double> norm_oracle(const MatrixView& w, float eps, const Matrix<double>& x) {
  Matrix<double> y(x.shape());
  const auto wide = in_double(w);
  reference::rms_norm(x.cview(), wide.span(), eps, y.view());
  return y;
}
inline void add(Matrix<double>& x, const Matrix<double>& y, double scale = 1) {
  for (Index i = 0; i < x.size(); ++i) x.data()[i] += scale * y.data()[i];
}

inline Matrix<double> attention_oracle(const ModelConfig& c, const LayerWeights& w, const Matrix<double>& h,
                                       std::span<const Index> positions) {
  auto q = linear_oracle(w.wq, h), k = linear_oracle(w.wk, h);
  const auto v = linear_oracle(w.wv, h);
  const bool interleaved = c.rope_pairing == RopePairing::kInterleaved;
  for (auto* x : {&q, &k}) reference::rope(x->view(), positions, c.rope(), interleaved);
  Matrix<double> out(q.shape());
  reference::attention(q.cview(), k.cview(), v.cview(), c.head_dim, c.sliding_window, out.view());
  return linear_oracle(w.wo, out);
}

// Token by token: the chosen experts' outputs, weighted.
inline Matrix<double> moe_oracle(const ModelConfig& c, const LayerWeights& w, const Matrix<double>& h) {
  const auto logits = linear_oracle(w.router, h);
  Matrix<ExpertId> ids(Shape<2>{{h.dim(0), c.n_experts_per_tok}});
  Matrix<double> weights(ids.shape()), out(h.shape());
  reference::route(logits.cview(), {}, ids.view(), weights.view());
  for (Index t = 0; t < h.dim(0); ++t) {
    Matrix<double> row(Shape<2>{{1, c.dim}}), sum(row.shape());
    std::copy_n(h.row(t), c.dim, row.data());
    for (Index i = 0; i < c.n_experts_per_tok; ++i) {
      add(sum, expert_oracle(w.experts[static_cast<std::size_t>(ids.row(t)[i])], row), weights.row(t)[i]);
    }
    std::copy_n(sum.data(), c.dim, out.row(t));
  }
  return out;
}

// Logits of all positions of one sequence.
inline Matrix<double> forward_oracle(const Model& model, std::span<const TokenId> tokens) {
  const ModelConfig& c = model.config;
  const auto n = static_cast<Index>(tokens.size());
  std::vector<Index> positions(tokens.size());
  for (Index t = 0; t < n; ++t) positions[static_cast<std::size_t>(t)] = t;
  Matrix<double> x(Shape<2>{{n, c.dim}});
  const auto embedding = in_double(model.weights.embedding);
  reference::embedding(embedding.cview(), tokens, x.view());
  for (const LayerWeights& w : model.weights.layers) {
    add(x, attention_oracle(c, w, norm_oracle(w.attention_norm, c.norm_eps, x), positions));
    add(x, moe_oracle(c, w, norm_oracle(w.ffn_norm, c.norm_eps, x)));
  }
  return linear_oracle(c.tied_embeddings ? model.weights.embedding : model.weights.head,
                       norm_oracle(model.weights.final_norm, c.norm_eps, x));
}

// ---- a host ----------------------------------------------------------------------------------------------

// The next `count` tokens of a sequence.
struct Piece {
  std::size_t sequence;
  Index count;
};

// Runs sequences in steps of any composition and keeps the logits of every position.
class Host {
 public:
  Host(const Model& model, const KernelTable& table, Executor& executor, DType kv_dtype = DType::kF32)
      : model_(model), table_(table), executor_(executor), cache_(kv_layout(model.config, kv_dtype), 8, 64) {}

  std::size_t add(std::vector<TokenId> tokens) {
    const Shape<2> shape{{static_cast<Index>(tokens.size()), model_.config.vocab_size}};
    sequences_.push_back({cache_.open(), std::move(tokens), Matrix<float>(shape)});
    return sequences_.size() - 1;
  }

  // Rows stand piece after piece, or one of each piece in turn.
  void step(const std::vector<Piece>& pieces, bool interleaved = false, ForwardObserver* observer = nullptr) {
    tokens_.clear();
    positions_.clear();
    slots_.clear();
    rows_.clear();
    owners_.clear();
    for (const Piece& p : pieces) cache_.reserve(at(p).slot, p.count);
    const auto push = [&](const Piece& p, Index i) {
      const Index position = cache_.length(at(p).slot) + i;
      rows_.push_back(static_cast<Index>(tokens_.size()));
      tokens_.push_back(at(p).tokens[static_cast<std::size_t>(position)]);
      positions_.push_back(position);
      slots_.push_back(at(p).slot);
      owners_.push_back(p.sequence);
    };
    if (interleaved) {
      bool more = true;
      for (Index i = 0; more; ++i) {
        more = false;
        for (const Piece& p : pieces) {
          if (i < p.count) push(p, i), more = true;
        }
      }
    } else {
      for (const Piece& p : pieces) {
        for (Index i = 0; i < p.count; ++i) push(p, i);
      }
    }
    try {
      run(observer);
    } catch (...) {
      for (const Piece& p : pieces) cache_.roll_back(at(p).slot);
      throw;
    }
    for (const Piece& p : pieces) cache_.commit(at(p).slot, p.count);
  }

  const Matrix<float>& logits(std::size_t sequence) const { return sequences_[sequence].logits; }
  Index length(std::size_t sequence) const { return cache_.length(sequences_[sequence].slot); }
  void truncate(std::size_t sequence, Index length) { cache_.truncate(sequences_[sequence].slot, length); }
  bool done(std::size_t s) const { return length(s) == static_cast<Index>(sequences_[s].tokens.size()); }
  Index left(std::size_t s) const { return static_cast<Index>(sequences_[s].tokens.size()) - length(s); }
  KvCache& cache() { return cache_; }

 private:
  struct Sequence {
    SlotId slot;
    std::vector<TokenId> tokens;
    Matrix<float> logits;
  };

  void run(ForwardObserver* observer) {
    const ScratchScope scope(scratch_);
    const auto logits = scratch_.matrix<float>(static_cast<Index>(rows_.size()), model_.config.vocab_size);
    forward_({table_, executor_, scratch_}, model_, {tokens_, positions_, slots_, rows_}, cache_, logits, observer);
    for (std::size_t t = 0; t < rows_.size(); ++t) {
      std::copy_n(logits.row(static_cast<Index>(t)), logits.dim(1), sequences_[owners_[t]].logits.row(positions_[t]));
    }
  }
  const Sequence& at(const Piece& p) const { return sequences_[p.sequence]; }

  const Model& model_;
  const KernelTable& table_;
  Executor& executor_;
  Scratch scratch_;
  KvCache cache_;
  Forward forward_;
  std::vector<Sequence> sequences_;
  std::vector<TokenId> tokens_;
  std::vector<Index> positions_, rows_;
  std::vector<SlotId> slots_;
  std::vector<std::size_t> owners_;
};

}  // namespace mixtral::test
