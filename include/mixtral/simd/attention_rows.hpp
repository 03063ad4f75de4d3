// Attention of some neighbouring tokens of one sequence, for the query heads that share one key/value head, over blocks
// of the KV cache.
//
// Online softmax (Milakov and Gimelshein 2018), block by block, in chunks of kKvChunk positions that know nothing of
// each other (Dao et al. 2023, "Flash-Decoding"); the chunks' sums are then combined in rising order. Blocks and chunks
// begin at absolute multiples, and every row is computed as if it were alone, so a result depends on the token's
// position and not on how the prompt was split, on its neighbours or on who computes which chunk.
#pragma once

#include <algorithm>
#include <limits>

#include "mixtral/simd/kv_block.hpp"

namespace mixtral::simd {

inline constexpr Index kKvChunk = 1024;  // positions

struct SoftmaxState {
  float largest;  // score; -infinity before the first
  float total;    // sum of exp(score - largest)
};

// Row r is query head r % group of token r / group; tokens stand at neighbouring positions.
struct AttentionArgs {
  const float* q;  // heads q_stride apart, tokens q_token_stride
  Index q_stride, q_token_stride;
  Index tokens, group;
  Index head_dim;
  Index position;  // of the first token, which sees all up to its own
  Index window;    // 0, or how many of these at most: the last ones
  // Page b holds positions [32 b, 32 b + 32), keys at k_offset, values at v_offset as simd/kv_block.hpp says.
  const std::byte* const* pages;
  Index scale_offset;  // int8: of the scales of the keys, those of the values behind them
  Index k_offset, v_offset;
  Index v_stride;
  Index begin, end;  // positions of this call: begin is a multiple of kKvChunk, end - begin <= kKvChunk
  float scale;
  float* work;          // attention_work()
  float* out;           // [rows, v_stride]: sums of exp(score - largest) * value
  SoftmaxState* state;  // [rows]; total 0 where a row sees none of the positions
};

// Floats of memory for a call.
constexpr Index attention_work(Index rows, Index head_dim, Index v_stride) noexcept {
  return rows * (head_dim + kKvBlock + 1) + kKvBlock * (head_dim + v_stride);
}

// The chunks' results of some rows become outputs.
struct CombineArgs {
  float* sums;          // [chunks][rows, v_stride], is overwritten
  SoftmaxState* state;  // [chunks][rows], likewise
  Index chunks, rows, v_stride;
  Index group, head_dim;
  float* out;  // row r at out + r / group * out_token_stride + r % group * head_dim
  Index out_token_stride;
};

namespace detail {

// How many rows share the registers that keys and values are loaded into; bits do not depend on it.
template <class Arch>
struct AttentionTile {
  static constexpr bool kOneRegister = Lanes<Arch>::kParts == 1;
  static constexpr int kScoreRows = kOneRegister ? 8 : 4;  // times kHalves sums
  static constexpr int kHalves = kOneRegister ? 2 : 1;     // of sixteen positions each
  static constexpr int kValueRows = 4;                     // times kValueLanes sums
  static constexpr int kValueLanes = kOneRegister ? 4 : 1;
};

// Rows up to which keys and values are widened in registers at each use; for more, once into memory.
inline constexpr Index kDirectRows = 8;

// What is read after the keys of a block, asked for while these are multiplied: its values and the next block's keys.
template <class Arch>
struct Ahead {
  const std::byte *values = nullptr, *keys = nullptr;  // nullptr: nothing

  // While dimensions d and d + 1 are multiplied: their share, two dimensions of 32 positions of both.
  template <class T>
  [[gnu::always_inline]] void ask(Index d) const noexcept {
    if (values == nullptr) return;
    unroll<static_cast<int>(sizeof(T))>([&](auto line) __attribute__((always_inline)) {
      __builtin_prefetch(values + (d / 2 * static_cast<Index>(sizeof(T)) + line) * 64, 0, 2);
      __builtin_prefetch(keys + (d / 2 * static_cast<Index>(sizeof(T)) + line) * 64, 0, 2);
    });
  }
};

// scores[r][32] = q[r] . k, R rows.  q [head_dim][R]
template <class Arch, int R, class T>
void block_scores(const KvReader<Arch, T>& kv, const float* q, Index head_dim, const Ahead<Arch>& ahead,
                  float* scores) noexcept {
  using V = Lanes<Arch>;
  constexpr int kHalves = AttentionTile<Arch>::kHalves;
  for (Index first = 0; first < kKvBlock / kLanes; first += kHalves) {
    V acc[R][kHalves];
    unroll<R>([&](auto r) __attribute__((always_inline)) {
      unroll<kHalves>([&](auto h) __attribute__((always_inline)) { acc[r][h] = V::zero(); });
    });
    Index d = 0;
    for (; d + 2 <= head_dim; d += 2) {
      if (first == 0) ahead.template ask<T>(d);
      V keys[kHalves][2];
      unroll<kHalves>([&](auto h) __attribute__((always_inline)) { kv.keys(d, first + h, keys[h]); });
      unroll<2>([&](auto i) __attribute__((always_inline)) {
        unroll<R>([&](auto r) __attribute__((always_inline)) {
          const V qs = V::broadcast(q[(d + i) * R + r]);
          unroll<kHalves>([&](auto h) __attribute__((always_inline)) { acc[r][h] = fma(qs, keys[h][i], acc[r][h]); });
        });
      });
    }
    if (d < head_dim) {
      unroll<kHalves>([&](auto h) __attribute__((always_inline)) {
        const V key = kv.last_key(d, first + h);
        unroll<R>([&](auto r)
                      __attribute__((always_inline)) { acc[r][h] = fma(V::broadcast(q[d * R + r]), key, acc[r][h]); });
      });
    }
    unroll<R>([&](auto r) __attribute__((always_inline)) {
      unroll<kHalves>([&](auto h) __attribute__((always_inline)) {
        acc[r][h].store(scores + r * kKvBlock + (first + h) * kLanes);
      });
    });
  }
}

// out[r] = out[r] * correction[r] + sum over t in [begin, end) of p[r][t] * v[t], R rows, C Lanes from d on.
template <class Arch, int R, int C, class T>
void add_values(const KvReader<Arch, T>& kv, const float* p, Index d, Index begin, Index end, const float* correction,
                float* out, Index v_stride) noexcept {
  using V = Lanes<Arch>;
  V acc[R][C];
  unroll<R>([&](auto r) __attribute__((always_inline)) {
    const V factor = V::broadcast(correction[r]);
    unroll<C>([&](auto c) __attribute__((always_inline)) {
      acc[r][c] = V::load(out + r * v_stride + d + c * kLanes) * factor;
    });
  });
  for (Index t = begin / 2 * 2; t < end; t += 2) {
    V values[C][2];
    unroll<C>([&](auto c) __attribute__((always_inline)) { kv.values(t, d + c * kLanes, values[c]); });
    const auto add = [&](auto i) __attribute__((always_inline)) {
      unroll<R>([&](auto r) __attribute__((always_inline)) {
        const V ps = V::broadcast(p[r * kKvBlock + t + i]);
        unroll<C>([&](auto c) __attribute__((always_inline)) { acc[r][c] = fma(ps, values[c][i], acc[r][c]); });
      });
    };
    if (t >= begin) add(std::integral_constant<int, 0>{});
    if (t + 1 < end) add(std::integral_constant<int, 1>{});
  }
  unroll<R>([&](auto r) __attribute__((always_inline)) {
    unroll<C>([&](auto c) __attribute__((always_inline)) { acc[r][c].store(out + r * v_stride + d + c * kLanes); });
  });
}

// Positions of the block that starts at `block` which the token at `position` sees: [begin, end) from there on.
struct Seen {
  Index begin, end;
};
template <class Arch>
[[gnu::always_inline]] inline Seen seen(const AttentionArgs& a, Index block, Index position) noexcept {
  const Index first = a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
  const Index end = position + 1 < a.end ? position + 1 : a.end;
  return {first > block ? first - block : 0, end - block < kKvBlock ? end - block : kKvBlock};
}

// Scores of one row and block become probabilities, relative to the largest score so far; returns what earlier sums
// have to be multiplied by.
template <class Arch>
float absorb_scores(float* scores, Seen s, float scale, const float* scales, SoftmaxState& state) noexcept {
  using V = Lanes<Arch>;
  V low = V::load(scores) * V::broadcast(scale), high = V::load(scores + kLanes) * V::broadcast(scale);
  if (scales != nullptr) {
    low = low * V::load(scales);
    high = high * V::load(scales + kLanes);
  }
  if (s.begin > 0 || s.end < kKvBlock) {
    low.store(scores);
    high.store(scores + kLanes);
    for (Index t = 0; t < s.begin; ++t) scores[t] = -std::numeric_limits<float>::infinity();
    for (Index t = s.end; t < kKvBlock; ++t) scores[t] = -std::numeric_limits<float>::infinity();
    low = V::load(scores);
    high = V::load(scores + kLanes);
  }
  const float block_largest = max(low, high).largest();
  float correction = 1;  // exp(0)
  if (!(block_largest <= state.largest)) {
    const float largest = block_largest > state.largest ? block_largest : state.largest;
    correction = exp(V::broadcast(state.largest - largest)).first();
    state.largest = largest;
  }
  const V top = V::broadcast(state.largest);
  low = exp(low - top);
  high = exp(high - top);
  state.total = state.total * correction + (low + high).sum();
  if (scales != nullptr) {
    low = low * V::load(scales + kKvBlock);
    high = high * V::load(scales + kKvBlock + kLanes);
  }
  low.store(scores);
  high.store(scores + kLanes);
  return correction;
}

// One block by rows [first, last).  q in tiles of kScoreRows rows, [head_dim][rows of the tile]
template <class Arch, class T>
void attend_block(const AttentionArgs& a, const KvReader<Arch, T>& kv, const float* scales, Index block, Index first,
                  Index last, const Ahead<Arch>& ahead, const float* q, float* scores, float* correction) noexcept {
  using Tile = AttentionTile<Arch>;
  const Index rows = a.tokens * a.group;
  for (Index r = first / Tile::kScoreRows * Tile::kScoreRows; r < last; r += Tile::kScoreRows) {
    with_constant<Tile::kScoreRows>(std::min<Index>(rows - r, Tile::kScoreRows), [&](auto n) {
      block_scores<Arch, n>(kv, q + r * a.head_dim, a.head_dim, r <= first ? ahead : Ahead<Arch>{},
                            scores + r * kKvBlock);
    });
  }
  for (Index r = first; r < last; ++r) {
    correction[r] = absorb_scores<Arch>(scores + r * kKvBlock, seen<Arch>(a, block, a.position + r / a.group), a.scale,
                                        scales, a.state[r]);
  }
  // Rows that see the same positions share the loads of values.
  for (Index r = first; r < last;) {
    const Seen s = seen<Arch>(a, block, a.position + r / a.group);
    Index n = 1;
    for (; n < Tile::kValueRows && r + n < last; ++n) {
      const Seen next = seen<Arch>(a, block, a.position + (r + n) / a.group);
      if (next.begin != s.begin || next.end != s.end) break;
    }
    with_constant<Tile::kValueRows>(n, [&](auto count) {
      const auto add = [&](auto lanes, Index d) __attribute__((always_inline)) {
        add_values<Arch, count, lanes>(kv, scores + r * kKvBlock, d, s.begin, s.end, correction + r,
                                       a.out + r * a.v_stride, a.v_stride);
      };
      Index d = 0;
      constexpr Index kStep = Tile::kValueLanes * kLanes;
      for (; d + kStep <= a.v_stride; d += kStep) add(std::integral_constant<int, Tile::kValueLanes>{}, d);
      for (; d < a.v_stride; d += kLanes) add(std::integral_constant<int, 1>{}, d);
    });
    r += n;
  }
}

// A block as float32.  keys [head_dim][32], values [32][v_stride]
template <class Arch, class T>
void widen_block(const KvReader<Arch, T>& kv, Index head_dim, float* keys, float* values) noexcept {
  using V = Lanes<Arch>;
  V pair[2];
  for (Index half = 0; half < kKvBlock / kLanes; ++half) {
    Index d = 0;
    for (; d + 2 <= head_dim; d += 2) {
      kv.keys(d, half, pair);
      unroll<2>([&](auto i) { pair[i].store(keys + (d + i) * kKvBlock + half * kLanes); });
    }
    if (d < head_dim) kv.last_key(d, half).store(keys + d * kKvBlock + half * kLanes);
  }
  for (Index t = 0; t < kKvBlock; t += 2) {
    for (Index d = 0; d < kv.v_stride; d += kLanes) {
      kv.values(t, d, pair);
      unroll<2>([&](auto i) { pair[i].store(values + (t + i) * kv.v_stride + d); });
    }
  }
}

// q in tiles, so that a tile's rows lie side by side.
template <class Arch>
void arrange_queries(const AttentionArgs& a, float* q) noexcept {
  constexpr Index kTile = AttentionTile<Arch>::kScoreRows;
  const Index rows = a.tokens * a.group;
  for (Index r0 = 0; r0 < rows; r0 += kTile) {
    const Index n = std::min(rows - r0, kTile);
    for (Index i = 0; i < n; ++i) {
      const float* row = a.q + (r0 + i) / a.group * a.q_token_stride + (r0 + i) % a.group * a.q_stride;
      for (Index d = 0; d < a.head_dim; ++d) q[r0 * a.head_dim + d * n + i] = row[d];
    }
  }
}

}  // namespace detail

// One chunk of a cache whose elements are T.
template <class Arch, class T>
void attention(const AttentionArgs& a) noexcept {
  const Index rows = a.tokens * a.group;
  float* q = a.work;
  float* scores = q + rows * a.head_dim;
  float* keys = scores + rows * kKvBlock;
  float* values = keys + kKvBlock * a.head_dim;
  float* correction = values + kKvBlock * a.v_stride;
  detail::arrange_queries<Arch>(a, q);
  for (Index r = 0; r < rows; ++r) a.state[r] = {-std::numeric_limits<float>::infinity(), 0.0f};
  std::memset(a.out, 0, static_cast<std::size_t>(rows * a.v_stride) * sizeof(float));
  const Index seen_from = a.window > 0 ? std::max<Index>(0, a.position - a.window + 1) : 0;
  const Index end = std::min(a.end, a.position + a.tokens);
  for (Index block = std::max(a.begin, seen_from / kKvBlock * kKvBlock); block < end; block += kKvBlock) {
    // Of the tokens, those whose positions reach into the block.
    const Index first = std::max<Index>(0, block - a.position) * a.group;
    const Index after = a.window > 0 ? block + kKvBlock + a.window - 1 - a.position : a.tokens;
    const Index last = std::min(a.tokens, after) * a.group;
    const std::byte* page = a.pages[block / kKvBlock];
    const KvReader<Arch, T> kv{reinterpret_cast<const T*>(page + a.k_offset),
                               reinterpret_cast<const T*>(page + a.v_offset), a.v_stride};
    const float* scales = KvReader<Arch, T>::kScaled ? reinterpret_cast<const float*>(page + a.scale_offset) : nullptr;
    if constexpr (!std::is_same_v<T, float>) {
      if (last - first > detail::kDirectRows) {
        detail::widen_block(kv, a.head_dim, keys, values);
        detail::attend_block<Arch, float>(a, {keys, values, a.v_stride}, scales, block, first, last, {}, q, scores,
                                          correction);
        continue;
      }
    }
    const std::byte* next = block + kKvBlock < end ? a.pages[block / kKvBlock + 1] : page;
    detail::attend_block<Arch, T>(a, kv, scales, block, first, last, {page + a.v_offset, next + a.k_offset}, q, scores,
                                  correction);
  }
}

// out = the chunks' sums over their totals, in rising order of the chunks.
template <class Arch>
void combine_attention(const CombineArgs& a) noexcept {
  using V = Lanes<Arch>;
  for (Index r = 0; r < a.rows; ++r) {
    float* sum = nullptr;  // of the first chunk that the row sees
    SoftmaxState total{};
    for (Index c = 0; c < a.chunks; ++c) {
      const SoftmaxState next = a.state[c * a.rows + r];
      float* more = a.sums + (c * a.rows + r) * a.v_stride;
      if (next.total == 0) continue;  // sees nothing of this chunk
      if (sum == nullptr) {
        sum = more;
        total = next;
        continue;
      }
      const float largest = next.largest > total.largest ? next.largest : total.largest;
      const float before = exp(V::broadcast(total.largest - largest)).first();
      const float after = exp(V::broadcast(next.largest - largest)).first();
      total = {largest, total.total * before + next.total * after};
      for (Index d = 0; d < a.v_stride; d += kLanes) {
        fma(V::load(more + d), V::broadcast(after), V::load(sum + d) * V::broadcast(before)).store(sum + d);
      }
    }
    float* out = a.out + r / a.group * a.out_token_stride + r % a.group * a.head_dim;
    const V factor = V::broadcast(1.0f / total.total);
    Index d = 0;
    for (; d + kLanes <= a.head_dim; d += kLanes) (V::load(sum + d) * factor).store(out + d);
    if (d < a.head_dim) (V::load(sum + d) * factor).store_first(out + d, a.head_dim - d);
  }
}

}  // namespace mixtral::simd
