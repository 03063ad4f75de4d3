// The executable specification: every step of the model as a plain loop, for any element type. Written to be
// read. The fast versions are tested against these; double is the oracle of the tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "mixtral/core/float16.hpp"
#include "mixtral/core/tensor.hpp"
#include "mixtral/ops/rope_scaling.hpp"

namespace mixtral::reference {

// What sums of T are kept in: double for double, float32 for everything else.
template <class T>
using Sum = std::conditional_t<std::is_same_v<std::remove_const_t<T>, double>, double, float>;

template <class T>
Sum<T> value(T x) {
  if constexpr (std::is_same_v<T, double>) {
    return x;
  } else {
    return to_float(x);
  }
}

template <class T>
void assign(T& out, Sum<T> x) {
  if constexpr (std::is_same_v<T, bf16>) {
    out = to_bf16(x);
  } else if constexpr (std::is_same_v<T, f16>) {
    out = to_f16(x);
  } else {
    out = x;
  }
}

// y[t, :] = table[ids[t], :].  table [vocab, dim], y [n, dim]
template <class W, class T>
void embedding(TensorView<const W, 2> table, std::span<const TokenId> ids, TensorView<T, 2> y) {
  for (Index t = 0; t < y.dim(0); ++t) {
    for (Index d = 0; d < y.dim(1); ++d) {
      assign(y.row(t)[d], static_cast<Sum<T>>(value(table.row(ids[static_cast<std::size_t>(t)])[d])));
    }
  }
}

// y = weight * x / sqrt(mean(x^2) + eps), row by row (Zhang and Sennrich 2019).  x, y [n, dim], weight [dim]
template <class W, class T>
void rms_norm(TensorView<const T, 2> x, std::span<const W> weight, float eps, TensorView<T, 2> y) {
  for (Index t = 0; t < x.dim(0); ++t) {
    Sum<T> squares = 0;
    for (Index d = 0; d < x.dim(1); ++d) squares += value(x.row(t)[d]) * value(x.row(t)[d]);
    const Sum<T> scale = 1 / std::sqrt(squares / static_cast<Sum<T>>(x.dim(1)) + static_cast<Sum<T>>(eps));
    for (Index d = 0; d < x.dim(1); ++d) {
      assign(y.row(t)[d], value(x.row(t)[d]) * scale * static_cast<Sum<T>>(value(weight[static_cast<std::size_t>(d)])));
    }
  }
}

// y = x w^T.  x [n, cols], w [rows, cols], y [n, rows]
template <class W, class T>
void linear(TensorView<const W, 2> w, TensorView<const T, 2> x, TensorView<T, 2> y) {
  for (Index t = 0; t < x.dim(0); ++t) {
    for (Index r = 0; r < w.dim(0); ++r) {
      Sum<T> sum = 0;
      for (Index k = 0; k < w.dim(1); ++k) sum += value(x.row(t)[k]) * static_cast<Sum<T>>(value(w.row(r)[k]));
      assign(y.row(t)[r], sum);
    }
  }
}

// In place over each row; -infinity becomes 0.  x [n, cols]
template <class T>
void softmax(TensorView<T, 2> x) {
  for (Index t = 0; t < x.dim(0); ++t) {
    Sum<T> largest = -std::numeric_limits<Sum<T>>::infinity(), total = 0;
    for (Index i = 0; i < x.dim(1); ++i) largest = std::max(largest, value(x.row(t)[i]));
    std::vector<Sum<T>> e(static_cast<std::size_t>(x.dim(1)));
    for (Index i = 0; i < x.dim(1); ++i) {
      e[static_cast<std::size_t>(i)] = std::exp(value(x.row(t)[i]) - largest);
      total += e[static_cast<std::size_t>(i)];
    }
    for (Index i = 0; i < x.dim(1); ++i) assign(x.row(t)[i], e[static_cast<std::size_t>(i)] / total);
  }
}

// h = silu(gate) * up (Shazeer 2020).  all [n, hidden_dim]
template <class T>
void swiglu(TensorView<const T, 2> gate, TensorView<const T, 2> up, TensorView<T, 2> h) {
  for (Index t = 0; t < h.dim(0); ++t) {
    for (Index i = 0; i < h.dim(1); ++i) {
      const Sum<T> g = value(gate.row(t)[i]);
      assign(h.row(t)[i], g / (1 + std::exp(-g)) * value(up.row(t)[i]));
    }
  }
}

// Rotates pairs of each head by position * frequency(i) (Su et al. 2021), times the magnitude.  x [n, n_heads *
// head_dim]
template <class T>
void rope(TensorView<T, 2> x, std::span<const Index> positions, const RopeFrequencies& frequencies, bool interleaved) {
  const Index head_dim = frequencies.head_dim(), half = head_dim / 2;
  const double magnitude = frequencies.magnitude();
  for (Index t = 0; t < x.dim(0); ++t) {
    for (Index head = 0; head < x.dim(1) / head_dim; ++head) {
      T* v = x.row(t) + head * head_dim;
      for (Index i = 0; i < half; ++i) {
        const double angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) * frequencies(i);
        const auto c = static_cast<Sum<T>>(magnitude * std::cos(angle));
        const auto s = static_cast<Sum<T>>(magnitude * std::sin(angle));
        T& first = v[interleaved ? 2 * i : i];
        T& second = v[interleaved ? 2 * i + 1 : i + half];
        const Sum<T> a = value(first), b = value(second);
        assign(first, a * c - b * s);
        assign(second, b * c + a * s);
      }
    }
  }
}

// Causal grouped-query attention of one sequence whose row t is position t; query head h reads key/value head
// h / (n_heads / n_kv_heads). With a window W, position i sees j where i - W < j <= i.
// q [n, n_heads * head_dim], k, v [n, n_kv_heads * head_dim], out as q
template <class T>
void attention(TensorView<const T, 2> q, TensorView<const T, 2> k, TensorView<const T, 2> v, Index head_dim,
               Index window, TensorView<T, 2> out) {
  const Index n_heads = q.dim(1) / head_dim, group = n_heads / (k.dim(1) / head_dim);
  const Sum<T> scale = 1 / std::sqrt(static_cast<Sum<T>>(head_dim));
  for (Index i = 0; i < q.dim(0); ++i) {
    const Index first = window > 0 ? std::max<Index>(0, i - window + 1) : 0;
    for (Index h = 0; h < n_heads; ++h) {
      const Index kv = h / group * head_dim;
      Tensor<Sum<T>, 2> scores(Shape<2>{{1, i + 1 - first}});
      for (Index j = first; j <= i; ++j) {
        Sum<T> dot = 0;
        for (Index d = 0; d < head_dim; ++d) dot += value(q.row(i)[h * head_dim + d]) * value(k.row(j)[kv + d]);
        scores.row(0)[j - first] = dot * scale;
      }
      softmax(scores.view());
      for (Index d = 0; d < head_dim; ++d) {
        Sum<T> sum = 0;
        for (Index j = first; j <= i; ++j) sum += scores.row(0)[j - first] * value(v.row(j)[kv + d]);
        assign(out.row(i)[h * head_dim + d], sum);
      }
    }
  }
}

// One expert: y = w2 (silu(w1 x) * (w3 x)).  x, y [n, dim], w1, w3 [hidden_dim, dim], w2 [dim, hidden_dim]
template <class W, class T>
void expert_ffn(TensorView<const W, 2> w1, TensorView<const W, 2> w2, TensorView<const W, 2> w3,
                TensorView<const T, 2> x, TensorView<T, 2> y) {
  Tensor<T, 2> gate(Shape<2>{{x.dim(0), w1.dim(0)}}), up(Shape<2>{{x.dim(0), w1.dim(0)}});
  linear(w1, x, gate.view());
  linear(w3, x, up.view());
  swiglu(gate.cview(), up.cview(), gate.view());
  linear(w2, gate.cview(), y);
}

// The k experts with the largest finite logits, largest first, ties to the lower id, and the softmax over them.
// `available` [n_experts] may be empty: all are.  logits [n, n_experts], ids, weights [n, k]
// Throws Error(kInvalidArgument) where fewer than k can be chosen.
template <class T>
void route(TensorView<const T, 2> logits, std::span<const std::uint8_t> available, TensorView<ExpertId, 2> ids,
           TensorView<T, 2> weights) {
  for (Index t = 0; t < logits.dim(0); ++t) {
    std::vector<ExpertId> order;
    for (Index e = 0; e < logits.dim(1); ++e) {
      const bool usable = available.empty() || available[static_cast<std::size_t>(e)] != 0;
      if (usable && std::isfinite(logits.row(t)[e])) order.push_back(static_cast<ExpertId>(e));
    }
    require(static_cast<Index>(order.size()) >= ids.dim(1), "route: token ", t, " has ", order.size(),
            " experts to choose ", ids.dim(1), " from");
    std::sort(order.begin(), order.end(), [&](ExpertId a, ExpertId b) {
      const T x = logits.row(t)[a], y = logits.row(t)[b];
      return x > y || (x == y && a < b);
    });
    for (Index i = 0; i < ids.dim(1); ++i) {
      ids.row(t)[i] = order[static_cast<std::size_t>(i)];
      weights.row(t)[i] = logits.row(t)[ids.row(t)[i]];
    }
  }
  softmax(weights);
}

// y[t] += sum over i, in order, of weights[t, i] * outputs[t * k + i].  y [n, dim], outputs [n * k, dim]
template <class T>
void combine(TensorView<const T, 2> outputs, TensorView<const T, 2> weights, TensorView<T, 2> y) {
  for (Index t = 0; t < y.dim(0); ++t) {
    for (Index d = 0; d < y.dim(1); ++d) {
      Sum<T> sum = value(y.row(t)[d]);
      for (Index i = 0; i < weights.dim(1); ++i) {
        sum += value(weights.row(t)[i]) * value(outputs.row(t * weights.dim(1) + i)[d]);
      }
      assign(y.row(t)[d], sum);
    }
  }
}

}  // namespace mixtral::reference
