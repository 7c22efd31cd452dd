// What an eSEN computes outside its matrix products. Per edge: gather and rotate, gate, rotate back and sum; per atom:
// norm and gate; and the gradients of these. Plain C interface, called through ctypes by native.py. The order of the
// calls is that of frozen.py and frozen_nodes.py; differentiable.py calls them one by one.
//
// Memory layout. All arrays are contiguous and row-major, channels last: the inner loops run over channels, which are
// consecutive in memory, so that they vectorise, and the elements of a rotation are scalars in them.
//   x, grad_x     (atoms, coefficients, channels), coefficient index l*l + l + m: the 2l + 1 rows of a degree are
//                 consecutive, and a rotation combines only these
//   rot           (edges, rows, coefficients); of each row only the block of its own l is read or written, the rest is
//                 zero. Rows are the (l, m) of `reduced_order`: m-major, |m| <= mmax
//   rotated rows  (edges, rows, 2 * channels), channels of the source first; the rows of each m are consecutive, so
//                 that the matrix product of that m reads consecutive columns
//   modulation    (edges, n, 2 * channels), one entry for each (|m|, l), m-major; the rows of +m and -m share it
//   hidden        (edges, lmax * channels of gates, then rows * channels)
//   values        (edges, rows, channels)
// `source` and `target` are atom indices, `target` ascending; `envelope` has one factor per edge.
//
// Every output element is summed by one thread in a fixed order, so that results do not depend on the number of
// threads and no atomic additions are needed. Gradients: `grad` arrives at the result, and grad_a is that of the
// argument a. In a double backward, u_a arrives at grad_a.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

struct Row {
    int l, m, modulation;  // modulation: index of (|m|, l) among the entries of the modulation
};

// The rows of the edge frame in m-major order, as harmonics.reduced_order.
std::vector<Row> reduced_rows(int lmax, int mmax) {
    std::vector<Row> rows;
    int place = 0;
    for (int m = 0; m <= mmax; ++m) {
        for (int sign = 0; sign < (m ? 2 : 1); ++sign)
            for (int l = m; l <= lmax; ++l) rows.push_back({l, sign ? -m : m, place + l - m});
        place += lmax + 1 - m;
    }
    return rows;
}

// exp without a library call, so that loops over it are vectorised; NaN stays NaN.
//
// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln(2) / 2. Adding 1.5 * 2^23 (double: 1.5 * 2^52) rounds
// to an integer in the low bits of the mantissa, from where it is shifted into the exponent. ln 2 is subtracted in
// two parts (Cody and Waite), of which the first has so few bits that its product with n is exact. exp(r) is its
// Taylor series of order 7 (double: 13). Arguments are clamped to where 2^n is a normal number.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9841270e-4f;
    p = p * r + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const int32_t bits = (std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(12582912.0f) + 127) << 23;
    return p * std::bit_cast<float>(bits);
}

inline double exponential(double x) {
    x = x < -708.0 ? -708.0 : (x > 709.0 ? 709.0 : x);
    const double shifted = x * 1.4426950408889634 + 6755399441055744.0;
    const double n = shifted - 6755399441055744.0;
    const double r = (x - n * 0.693145751953125) - n * 1.42860682030941723212e-6;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const int64_t bits = (std::bit_cast<int64_t>(shifted) - std::bit_cast<int64_t>(6755399441055744.0) + 1023) << 52;
    return p * std::bit_cast<double>(bits);
}

template <typename T>
inline T sigmoid(T x) {
    return T(1) / (T(1) + exponential(-x));
}

// out[c] = factor[c] * sum over k of weight[k] * x[k][c]: one row of a rotation, K = 2l + 1, times the modulation. K
// is a compile-time constant, so that the loop over k is unrolled inside the vectorised loop over channels.
template <typename T, int K>
inline void combine(const T* __restrict weight, const T* __restrict x, int channels, const T* __restrict factor,
                    T* __restrict out) {
#pragma omp simd
    for (int c = 0; c < channels; ++c) {
        T sum = weight[0] * x[c];
        for (int k = 1; k < K; ++k) sum += weight[k] * x[k * channels + c];
        out[c] = sum * factor[c];
    }
}

// The gradients of `combine`. `grad_sum`, which may be `grad` itself, becomes the gradient of the sum without its
// factor. `first`: grad_factor is uninitialised; otherwise it holds the part of the row +m, with which the row -m
// shares it.
template <typename T, int K>
inline void combine_backward(const T* __restrict weight, const T* __restrict x, int channels,
                             const T* __restrict factor, const T* grad, T* grad_sum, T* __restrict grad_factor,
                             bool first, T* __restrict grad_weight) {
    if (first) std::fill(grad_factor, grad_factor + channels, T(0));
#pragma omp simd
    for (int c = 0; c < channels; ++c) {
        T sum = weight[0] * x[c];
        for (int k = 1; k < K; ++k) sum += weight[k] * x[k * channels + c];
        grad_factor[c] += grad[c] * sum;
        grad_sum[c] = grad[c] * factor[c];
    }
    for (int k = 0; k < K; ++k) {
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int c = 0; c < channels; ++c) dot += grad_sum[c] * x[k * channels + c];
        grad_weight[k] += dot;
    }
}

// The double backward of `combine`: gradients of weight, factor and grad, given u_weight, u_x and u_factor. That of
// x is u_weight * grad_sum + weight * grad_sum_u, which the caller scatters.
template <typename T, int K>
inline void combine_double_backward(const T* __restrict weight, const T* __restrict u_weight, const T* __restrict x,
                                    const T* __restrict u_x, int channels, const T* __restrict factor,
                                    const T* __restrict u_factor, const T* __restrict grad, T* __restrict grad_sum,
                                    T* __restrict grad_sum_u, T* __restrict grad_factor, bool first,
                                    T* __restrict grad_weight, T* __restrict grad_grad) {
    if (first) std::fill(grad_factor, grad_factor + channels, T(0));
#pragma omp simd
    for (int c = 0; c < channels; ++c) {
        T sum = weight[0] * x[c], u_sum = u_weight[0] * x[c] + weight[0] * u_x[c];
        for (int k = 1; k < K; ++k) {
            sum += weight[k] * x[k * channels + c];
            u_sum += u_weight[k] * x[k * channels + c] + weight[k] * u_x[k * channels + c];
        }
        grad_grad[c] = factor[c] * u_sum + u_factor[c] * sum;
        grad_factor[c] += grad[c] * u_sum;
        grad_sum[c] = factor[c] * grad[c];
        grad_sum_u[c] = u_factor[c] * grad[c];
    }
    for (int k = 0; k < K; ++k) {
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int c = 0; c < channels; ++c)
            dot += grad_sum[c] * u_x[k * channels + c] + grad_sum_u[c] * x[k * channels + c];
        grad_weight[k] += dot;
    }
}

// x[k][c] += weight[k] * factor * (value[c] + shift[c]): one row rotated back.
template <typename T, int K>
inline void spread(const T* __restrict weight, T factor, const T* __restrict value, const T* __restrict shift,
                   int channels, T* __restrict x) {
#pragma omp simd
    for (int c = 0; c < channels; ++c) {
        const T sum = factor * (value[c] + shift[c]);
        for (int k = 0; k < K; ++k) x[k * channels + c] += weight[k] * sum;
    }
}

// Calls `work` with 2l + 1 as a compile-time constant; native.py allows lmax <= 6.
template <typename Work>
inline void with_width(int l, Work work) {
    switch (l) {
        case 0: return work(std::integral_constant<int, 1>());
        case 1: return work(std::integral_constant<int, 3>());
        case 2: return work(std::integral_constant<int, 5>());
        case 3: return work(std::integral_constant<int, 7>());
        case 4: return work(std::integral_constant<int, 9>());
        case 5: return work(std::integral_constant<int, 11>());
        default: return work(std::integral_constant<int, 13>());
    }
}

// First position of thread `part` of `parts` in [0, n), moved to the next change of node, so that all edges of a node
// belong to one thread: it then adds to that node without atomics, in a fixed order. `nodes` ascends along `order`.
inline int64_t node_start(const int64_t* nodes, const int64_t* order, int64_t n, int64_t part, int64_t parts) {
    int64_t position = n * part / parts;
    const auto node = [&](int64_t p) { return nodes[order ? order[p] : p]; };
    while (position > 0 && position < n && node(position) == node(position - 1)) ++position;
    return position;
}

// Calls `work` for every edge, the edges of a node in one thread. `order` may be null where `nodes` ascends itself.
template <typename Work>
inline void by_nodes(const int64_t* nodes, const int64_t* order, int64_t n, int threads, Work work) {
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int part = 0; part < threads; ++part) {
        const int64_t end = node_start(nodes, order, n, part + 1, threads);
        for (int64_t p = node_start(nodes, order, n, part, threads); p < end; ++p) work(order ? order[p] : p);
    }
}

// out: features of source and target rotated into the edge frame, times the modulation.
template <typename T>
void gather_rotate(int lmax, int mmax, int channels, int64_t n, const int64_t* source, const int64_t* target,
                   const T* x, const T* rot, const T* modulation, T* out, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), size = (lmax + 1) * (lmax + 1), wide = 2 * channels;
    const int64_t n_modulation = (rows.back().modulation + 1) * wide;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e)
        for (int64_t r = 0; r < n_rows; ++r) {
            const Row row = rows[r];
            const int64_t block = row.l * row.l;
            const T* weight = rot + (e * n_rows + r) * size + block;
            const T* factor = modulation + e * n_modulation + row.modulation * wide;
            T* to = out + (e * n_rows + r) * wide;
            with_width(row.l, [&](auto width) {
                constexpr int K = decltype(width)::value;
                combine<T, K>(weight, x + (source[e] * size + block) * channels, channels, factor, to);
                combine<T, K>(weight, x + (target[e] * size + block) * channels, channels, factor + channels,
                              to + channels);
            });
        }
}

// `grad` is that of the rotated and modulated rows; `grad_rows`, which may be `grad` itself, becomes that of the
// rotated rows, which scatter_rotated turns into grad_x. Adds to grad_rot, writes grad_modulation.
template <typename T>
void gather_rotate_backward(int lmax, int mmax, int channels, int64_t n, const int64_t* source, const int64_t* target,
                            const T* x, const T* rot, const T* modulation, const T* grad, T* grad_rows, T* grad_rot,
                            T* grad_modulation, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), size = (lmax + 1) * (lmax + 1), wide = 2 * channels;
    const int64_t n_modulation = (rows.back().modulation + 1) * wide;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e)
        for (int64_t r = 0; r < n_rows; ++r) {
            const Row row = rows[r];
            const int64_t block = row.l * row.l;
            const int64_t place = (e * n_rows + r) * size + block, radial = e * n_modulation + row.modulation * wide;
            const int64_t from = (e * n_rows + r) * wide;
            with_width(row.l, [&](auto width) {
                constexpr int K = decltype(width)::value;
                for (int half = 0; half < 2; ++half) {
                    const int64_t node = half ? target[e] : source[e], shift = half * channels;
                    combine_backward<T, K>(rot + place, x + (node * size + block) * channels, channels,
                                           modulation + radial + shift, grad + from + shift, grad_rows + from + shift,
                                           grad_modulation + radial + shift, row.m >= 0, grad_rot + place);
                }
            });
        }
}

// The double backward of gather_rotate, given u_x, u_rot and u_modulation. Writes grad_modulation, grad_grad, and
// `grad_rows` and `u_rows`, which scatter_rotated turns into grad_x with u_rot and with rot; adds to grad_rot.
template <typename T>
void gather_rotate_double_backward(int lmax, int mmax, int channels, int64_t n, const int64_t* source,
                                   const int64_t* target, const T* x, const T* u_x, const T* rot, const T* u_rot,
                                   const T* modulation, const T* u_modulation, const T* grad, T* grad_rows, T* u_rows,
                                   T* grad_rot, T* grad_modulation, T* grad_grad, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), size = (lmax + 1) * (lmax + 1), wide = 2 * channels;
    const int64_t n_modulation = (rows.back().modulation + 1) * wide;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e)
        for (int64_t r = 0; r < n_rows; ++r) {
            const Row row = rows[r];
            const int64_t block = row.l * row.l;
            const int64_t place = (e * n_rows + r) * size + block;
            with_width(row.l, [&](auto width) {
                constexpr int K = decltype(width)::value;
                for (int half = 0; half < 2; ++half) {
                    const int64_t node = ((half ? target[e] : source[e]) * size + block) * channels;
                    const int64_t at = (e * n_rows + r) * wide + half * channels;
                    const int64_t radial = e * n_modulation + row.modulation * wide + half * channels;
                    combine_double_backward<T, K>(rot + place, u_rot + place, x + node, u_x + node, channels,
                                                  modulation + radial, u_modulation + radial, grad + at, grad_rows + at,
                                                  u_rows + at, grad_modulation + radial, row.m >= 0, grad_rot + place,
                                                  grad_grad + at);
                }
            });
        }
}

// Adds rows rotated back to the atoms of one end: the source (half 0, with the order of ascending sources) or the
// target (half 1). One pass for each end, because edges are sorted by one end at a time.
template <typename T>
void scatter_rotated(int lmax, int mmax, int channels, int64_t n, int half, const int64_t* nodes, const int64_t* order,
                     const T* rot, const T* grad, T* grad_x, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), size = (lmax + 1) * (lmax + 1), wide = 2 * channels;
    const std::vector<T> zero(channels, T(0));
    by_nodes(nodes, order, n, threads, [&](int64_t e) {
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t block = rows[r].l * rows[r].l;
            with_width(rows[r].l, [&](auto width) {
                spread<T, decltype(width)::value>(rot + (e * n_rows + r) * size + block, T(1),
                                                  grad + (e * n_rows + r) * wide + half * channels, zero.data(),
                                                  channels, grad_x + (nodes[e] * size + block) * channels);
            });
        }
    });
}

// Values plus a bias on m = 0, rotated back, times the envelope and added to their targets.
template <typename T>
void rotate_back(int lmax, int mmax, int channels, int64_t n, const int64_t* target, const T* rot, const T* envelope,
                 const T* values, const T* bias, T* out, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), size = (lmax + 1) * (lmax + 1);
    const std::vector<T> zero(channels, T(0));
    by_nodes(target, nullptr, n, threads, [&](int64_t e) {
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t block = rows[r].l * rows[r].l;
            const T* shift = rows[r].m == 0 ? bias + r * channels : zero.data();
            with_width(rows[r].l, [&](auto width) {
                spread<T, decltype(width)::value>(rot + (e * n_rows + r) * size + block, envelope[e],
                                                  values + (e * n_rows + r) * channels, shift, channels,
                                                  out + (target[e] * size + block) * channels);
            });
        }
    });
}

// Adds to grad_rot, writes grad_envelope and grad_values.
template <typename T>
void rotate_back_backward(int lmax, int mmax, int channels, int64_t n, const int64_t* target, const T* rot,
                          const T* envelope, const T* values, const T* bias, const T* grad, T* grad_rot,
                          T* grad_envelope, T* grad_values, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), size = (lmax + 1) * (lmax + 1);
    const std::vector<T> zero(channels, T(0));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T factor = envelope[e];
        T of_envelope = 0;
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t block = rows[r].l * rows[r].l, place = (e * n_rows + r) * size + block;
            const T* value = values + (e * n_rows + r) * channels;
            const T* shift = rows[r].m == 0 ? bias + r * channels : zero.data();
            const T* from = grad + (target[e] * size + block) * channels;
            T* to = grad_values + (e * n_rows + r) * channels;
            with_width(rows[r].l, [&](auto width) {
                constexpr int K = decltype(width)::value;
#pragma omp simd
                for (int c = 0; c < channels; ++c) {
                    T sum = rot[place] * from[c];
                    for (int k = 1; k < K; ++k) sum += rot[place + k] * from[k * channels + c];
                    to[c] = factor * sum;
                }
                for (int k = 0; k < K; ++k) {
                    T dot = 0;
#pragma omp simd reduction(+ : dot)
                    for (int c = 0; c < channels; ++c) dot += (value[c] + shift[c]) * from[k * channels + c];
                    grad_rot[place + k] += factor * dot;
                    of_envelope += rot[place + k] * dot;
                }
            });
        }
        grad_envelope[e] = of_envelope;
    }
}

// SiLU on l = 0, every other row times the sigmoid of the gate of its degree. `hidden` is without the bias of gates and
// m = 0, which is added here. The sigmoids, which the backward pass needs, go to rows that are `stride` apart:
// `sigmoids` may be `hidden` itself, whose gates they then replace.
template <typename T>
void gate(int lmax, int mmax, int channels, int64_t n, int stride, const T* hidden, const T* bias, T* sigmoids, T* out,
          int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), extra = int64_t(lmax) * channels, wide = extra + n_rows * channels;
    const std::vector<T> zero(channels, T(0));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T* from = hidden + e * wide;
        T* gates = sigmoids + e * stride;
#pragma omp simd
        for (int64_t c = 0; c < extra; ++c) gates[c] = sigmoid(from[c] + bias[c]);
        for (int64_t r = 0; r < n_rows; ++r) {
            const T* h = from + extra + r * channels;
            const T* b = rows[r].m == 0 ? bias + extra + r * channels : zero.data();
            T* to = out + (e * n_rows + r) * channels;
            if (rows[r].l == 0) {
#pragma omp simd
                for (int c = 0; c < channels; ++c) to[c] = (h[c] + b[c]) * sigmoid(h[c] + b[c]);
            } else {
                const T* g = gates + (rows[r].l - 1) * channels;
#pragma omp simd
                for (int c = 0; c < channels; ++c) to[c] = (h[c] + b[c]) * g[c];
            }
        }
    }
}

// `sigmoids` are those of `gate`; writes grad_hidden.
template <typename T>
void gate_backward(int lmax, int mmax, int channels, int64_t n, int stride, const T* hidden, const T* bias,
                   const T* sigmoids, const T* grad, T* grad_hidden, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), extra = int64_t(lmax) * channels, wide = extra + n_rows * channels;
    const std::vector<T> zero(channels, T(0));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T* gates = sigmoids + e * stride;
        T* to = grad_hidden + e * wide;
        std::fill(to, to + extra, T(0));
        for (int64_t r = 0; r < n_rows; ++r) {
            const T* h = hidden + e * wide + extra + r * channels;
            const T* b = rows[r].m == 0 ? bias + extra + r * channels : zero.data();
            const T* up = grad + (e * n_rows + r) * channels;
            T* down = to + extra + r * channels;
            if (rows[r].l == 0) {
#pragma omp simd
                for (int c = 0; c < channels; ++c) {
                    const T v = h[c] + b[c], s = sigmoid(v);
                    down[c] = up[c] * s * (T(1) + v * (T(1) - s));
                }
            } else {
                const T* g = gates + (rows[r].l - 1) * channels;
                T* sum = to + (rows[r].l - 1) * channels;
#pragma omp simd
                for (int c = 0; c < channels; ++c) {
                    down[c] = up[c] * g[c];
                    sum[c] += up[c] * (h[c] + b[c]);
                }
            }
        }
#pragma omp simd
        for (int64_t c = 0; c < extra; ++c) to[c] *= gates[c] * (T(1) - gates[c]);
    }
}

// The double backward of `gate` (without a bias): gradients of hidden and grad, given u, which arrives at grad_hidden.
template <typename T>
void gate_double_backward(int lmax, int mmax, int channels, int64_t n, int stride, const T* hidden, const T* sigmoids,
                          const T* grad, const T* u, T* grad_hidden, T* grad_grad, int threads) {
    const auto rows = reduced_rows(lmax, mmax);
    const int64_t n_rows = rows.size(), extra = int64_t(lmax) * channels, wide = extra + n_rows * channels;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T* gates = sigmoids + e * stride;
        const T* of_gates = u + e * wide;
        T* to = grad_hidden + e * wide;
        std::fill(to, to + extra, T(0));
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t column = extra + r * channels;
            const T* h = hidden + e * wide + column;
            const T* v = of_gates + column;
            const T* up = grad + (e * n_rows + r) * channels;
            T* down = to + column;
            T* across = grad_grad + (e * n_rows + r) * channels;
            if (rows[r].l == 0) {
#pragma omp simd
                for (int c = 0; c < channels; ++c) {
                    const T s = sigmoid(h[c]), slope = s * (T(1) - s);
                    across[c] = v[c] * (s + h[c] * slope);
                    down[c] = v[c] * up[c] * slope * (T(2) + h[c] * (T(1) - T(2) * s));
                }
            } else {
                const int64_t shift = (rows[r].l - 1) * channels;
                const T* s = gates + shift;
                const T* w = of_gates + shift;
                T* sum = to + shift;
#pragma omp simd
                for (int c = 0; c < channels; ++c) {
                    const T slope = s[c] * (T(1) - s[c]);
                    across[c] = v[c] * s[c] + w[c] * slope * h[c];
                    down[c] = w[c] * slope * up[c];
                    sum[c] += up[c] * slope * (v[c] + w[c] * (T(1) - T(2) * s[c]) * h[c]);
                }
            }
        }
    }
}

// out[e][c] += of_source[source[e]][c] + of_target[target[e]][c].
template <typename T>
void add_node_rows(int channels, int64_t n, const int64_t* source, const int64_t* target, const T* of_source,
                  const T* of_target, T* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T* s = of_source + source[e] * channels;
        const T* t = of_target + target[e] * channels;
        T* to = out + e * channels;
#pragma omp simd
        for (int c = 0; c < channels; ++c) to[c] += s[c] + t[c];
    }
}

// Mean, and 1 / sqrt(variance + 1e-5) with the epsilon of torch's LayerNorm.
template <typename T>
inline void moments(const T* x, int channels, T& mean, T& inverse) {
    T sum = 0, power = 0;
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < channels; ++c) sum += x[c];
    mean = sum / channels;
#pragma omp simd reduction(+ : power)
    for (int c = 0; c < channels; ++c) power += (x[c] - mean) * (x[c] - mean);
    inverse = T(1) / std::sqrt(power / channels + T(1e-5));
}

// SiLU of a layer norm with weight and bias.
template <typename T>
void norm_silu(int channels, int64_t n, const T* x, const T* weight, const T* bias, T* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T* from = x + e * channels;
        T* to = out + e * channels;
        T mean, inverse;
        moments(from, channels, mean, inverse);
#pragma omp simd
        for (int c = 0; c < channels; ++c) {
            const T v = (from[c] - mean) * inverse * weight[c] + bias[c];
            to[c] = v * sigmoid(v);
        }
    }
}

// The normalised values are recomputed from x, the only input that is kept.
template <typename T>
void norm_silu_backward(int channels, int64_t n, const T* x, const T* weight, const T* bias, const T* grad, T* grad_x,
                        int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T* from = x + e * channels;
        const T* up = grad + e * channels;
        T* down = grad_x + e * channels;
        T mean, inverse, sum = 0, dot = 0;
        moments(from, channels, mean, inverse);
#pragma omp simd reduction(+ : sum, dot)
        for (int c = 0; c < channels; ++c) {
            const T normal = (from[c] - mean) * inverse, v = normal * weight[c] + bias[c], s = sigmoid(v);
            const T g = up[c] * s * (T(1) + v * (T(1) - s)) * weight[c];
            down[c] = g;
            sum += g;
            dot += g * normal;
        }
        sum /= channels;
        dot /= channels;
#pragma omp simd
        for (int c = 0; c < channels; ++c)
            down[c] = inverse * (down[c] - sum - (from[c] - mean) * inverse * dot);
    }
}

// out[target[e]][s][c] += columns[e][s] * values[e][c]: edge scalars as m = 0 rows, rotated back. `columns` holds for
// each coefficient s the rotation to the m = 0 row of its degree, times the envelope.
template <typename T>
void spread_scalars(int size, int channels, int64_t n, const int64_t* target, const T* columns, const T* values, T* out,
                    int threads) {
    by_nodes(target, nullptr, n, threads, [&](int64_t e) {
        const T* value = values + e * channels;
        for (int s = 0; s < size; ++s) {
            const T weight = columns[e * size + s];
            T* to = out + (target[e] * size + s) * channels;
#pragma omp simd
            for (int c = 0; c < channels; ++c) to[c] += weight * value[c];
        }
    });
}

template <typename T>
void spread_scalars_backward(int size, int channels, int64_t n, const int64_t* target, const T* columns,
                             const T* values, const T* grad, T* grad_columns, T* grad_values, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t e = 0; e < n; ++e) {
        const T* value = values + e * channels;
        T* down = grad_values + e * channels;
        std::fill(down, down + channels, T(0));
        for (int s = 0; s < size; ++s) {
            const T* up = grad + (target[e] * size + s) * channels;
            const T weight = columns[e * size + s];
            T dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int c = 0; c < channels; ++c) {
                down[c] += weight * up[c];
                dot += value[c] * up[c];
            }
            grad_columns[e * size + s] = dot;
        }
    }
}

// The norm "rms_norm_sh" of the features of each atom. `balance` has the weight of each coefficient in the mean square,
// `weight` one row of channels for each degree; `bias` is added to l = 0.
template <typename T>
inline void balanced_moments(int size, int channels, const T* x, const T* balance, T& mean, T& inverse) {
    T sum = 0, power = 0;
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < channels; ++c) sum += x[c];
    mean = sum / channels;
    for (int s = 0; s < size; ++s) {
        const T* from = x + s * channels;
        const T shift = s ? T(0) : mean;
        T part = 0;
#pragma omp simd reduction(+ : part)
        for (int c = 0; c < channels; ++c) part += (from[c] - shift) * (from[c] - shift);
        power += balance[s] * part;
    }
    inverse = T(1) / std::sqrt(power / channels + T(1e-5));
}

template <typename T>
void node_norm(int lmax, int channels, int64_t n, const T* x, const T* balance, const T* weight, const T* bias, T* out,
               int threads) {
    const int size = (lmax + 1) * (lmax + 1);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) {
        const T* from = x + i * size * channels;
        T* to = out + i * size * channels;
        T mean, inverse;
        balanced_moments(size, channels, from, balance, mean, inverse);
#pragma omp simd
        for (int c = 0; c < channels; ++c) to[c] = (from[c] - mean) * (inverse * weight[c]) + bias[c];
        for (int l = 1; l <= lmax; ++l) {
            const T* scale = weight + l * channels;
            for (int s = l * l; s < (l + 1) * (l + 1); ++s) {
#pragma omp simd
                for (int c = 0; c < channels; ++c) to[s * channels + c] = from[s * channels + c] * (inverse * scale[c]);
            }
        }
    }
}

template <typename T>
void node_norm_backward(int lmax, int channels, int64_t n, const T* x, const T* balance, const T* weight, const T* grad,
                        T* grad_x, int threads) {
    const int size = (lmax + 1) * (lmax + 1);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) {
        const T *from = x + i * size * channels, *up = grad + i * size * channels;
        T* down = grad_x + i * size * channels;
        T mean, inverse, dot = 0, sum = 0;
        balanced_moments(size, channels, from, balance, mean, inverse);
        for (int l = 0; l <= lmax; ++l) {
            const T* scale = weight + l * channels;
            const T shift = l ? T(0) : mean;
            for (int s = l * l; s < (l + 1) * (l + 1); ++s) {
#pragma omp simd reduction(+ : dot)
                for (int c = 0; c < channels; ++c) {
                    const T g = up[s * channels + c] * scale[c];
                    down[s * channels + c] = inverse * g;
                    dot += g * (from[s * channels + c] - shift);
                }
            }
        }
        const T common = inverse * inverse * inverse * dot / channels;
        for (int s = 0; s < size; ++s) {
            const T shift = s ? T(0) : mean, factor = common * balance[s];
#pragma omp simd
            for (int c = 0; c < channels; ++c) down[s * channels + c] -= factor * (from[s * channels + c] - shift);
        }
#pragma omp simd reduction(+ : sum)
        for (int c = 0; c < channels; ++c) sum += down[c];
        sum /= channels;
#pragma omp simd
        for (int c = 0; c < channels; ++c) down[c] -= sum;
    }
}

// The gate of a node block: SiLU on l = 0, every other coefficient times sigmoid(SiLU(gates)) of its degree. The
// coefficients come first here, (coefficients, atoms, channels), so that each degree is one matrix for the products.
template <typename T>
void node_gate(int lmax, int channels, int64_t n, const T* gates, const T* hidden, T* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) {
        const T* scalar = hidden + i * channels;
        T* first = out + i * channels;
#pragma omp simd
        for (int c = 0; c < channels; ++c) first[c] = scalar[c] * sigmoid(scalar[c]);
        for (int l = 1; l <= lmax; ++l) {
            const T* gate = gates + (i * lmax + l - 1) * channels;
            for (int s = l * l; s < (l + 1) * (l + 1); ++s) {
                const int64_t row = (s * n + i) * channels;
#pragma omp simd
                for (int c = 0; c < channels; ++c)
                    out[row + c] = hidden[row + c] * sigmoid(gate[c] * sigmoid(gate[c]));
            }
        }
    }
}

// `grad` becomes the gradient of `hidden`.
template <typename T>
void node_gate_backward(int lmax, int channels, int64_t n, const T* gates, const T* hidden, T* grad, T* grad_gates,
                        int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < n; ++i) {
        const T* scalar = hidden + i * channels;
        T* first = grad + i * channels;
#pragma omp simd
        for (int c = 0; c < channels; ++c) {
            const T s = sigmoid(scalar[c]);
            first[c] *= s * (T(1) + scalar[c] * (T(1) - s));
        }
        for (int l = 1; l <= lmax; ++l) {
            const T* gate = gates + (i * lmax + l - 1) * channels;
            T* down = grad_gates + (i * lmax + l - 1) * channels;
            std::fill(down, down + channels, T(0));
            for (int s = l * l; s < (l + 1) * (l + 1); ++s) {
                const int64_t row = (s * n + i) * channels;
#pragma omp simd
                for (int c = 0; c < channels; ++c) {
                    down[c] += grad[row + c] * hidden[row + c];
                    grad[row + c] *= sigmoid(gate[c] * sigmoid(gate[c]));
                }
            }
#pragma omp simd
            for (int c = 0; c < channels; ++c) {
                const T inner = sigmoid(gate[c]), outer = sigmoid(gate[c] * inner);
                down[c] *= outer * (T(1) - outer) * inner * (T(1) + gate[c] * (T(1) - inner));
            }
        }
    }
}

}  // namespace

// C symbols for ctypes: the templates for one type.
#define FOR_TYPE(T, suffix)                                                                                            \
    void gather_rotate_##suffix(int l, int m, int c, int64_t n, const int64_t* s, const int64_t* t, const T* x,        \
                                const T* rot, const T* mod, T* out, int threads) {                                     \
        gather_rotate<T>(l, m, c, n, s, t, x, rot, mod, out, threads);                                                 \
    }                                                                                                                  \
    void gather_rotate_backward_##suffix(int l, int m, int c, int64_t n, const int64_t* s, const int64_t* t,           \
                                         const T* x, const T* rot, const T* mod, const T* grad, T* grad_rows,          \
                                         T* grad_rot, T* grad_mod, int threads) {                                      \
        gather_rotate_backward<T>(l, m, c, n, s, t, x, rot, mod, grad, grad_rows, grad_rot, grad_mod, threads);        \
    }                                                                                                                  \
    void gather_rotate_double_backward_##suffix(int l, int m, int c, int64_t n, const int64_t* s, const int64_t* t,    \
                                                const T* x, const T* u_x, const T* rot, const T* u_rot, const T* mod,  \
                                                const T* u_mod, const T* grad, T* grad_rows, T* u_rows, T* grad_rot,   \
                                                T* grad_mod, T* grad_grad, int threads) {                              \
        gather_rotate_double_backward<T>(l, m, c, n, s, t, x, u_x, rot, u_rot, mod, u_mod, grad, grad_rows, u_rows,    \
                                         grad_rot, grad_mod, grad_grad, threads);                                      \
    }                                                                                                                  \
    void scatter_rotated_##suffix(int l, int m, int c, int64_t n, int half, const int64_t* nodes,                      \
                                  const int64_t* order, const T* rot, const T* grad, T* grad_x, int threads) {         \
        scatter_rotated<T>(l, m, c, n, half, nodes, order, rot, grad, grad_x, threads);                                \
    }                                                                                                                  \
    void rotate_back_##suffix(int l, int m, int c, int64_t n, const int64_t* t, const T* rot, const T* envelope,       \
                              const T* values, const T* bias, T* out, int threads) {                                   \
        rotate_back<T>(l, m, c, n, t, rot, envelope, values, bias, out, threads);                                      \
    }                                                                                                                  \
    void rotate_back_backward_##suffix(int l, int m, int c, int64_t n, const int64_t* t, const T* rot,                 \
                                       const T* envelope, const T* values, const T* bias, const T* grad, T* grad_rot,  \
                                       T* grad_envelope, T* grad_values, int threads) {                                \
        rotate_back_backward<T>(l, m, c, n, t, rot, envelope, values, bias, grad, grad_rot, grad_envelope,             \
                                grad_values, threads);                                                                 \
    }                                                                                                                  \
    void gate_##suffix(int l, int m, int c, int64_t n, int stride, const T* hidden, const T* bias, T* sigmoids,        \
                       T* out, int threads) {                                                                          \
        gate<T>(l, m, c, n, stride, hidden, bias, sigmoids, out, threads);                                             \
    }                                                                                                                  \
    void gate_backward_##suffix(int l, int m, int c, int64_t n, int stride, const T* hidden, const T* bias,            \
                                const T* sigmoids, const T* grad, T* grad_hidden, int threads) {                       \
        gate_backward<T>(l, m, c, n, stride, hidden, bias, sigmoids, grad, grad_hidden, threads);                      \
    }                                                                                                                  \
    void gate_double_backward_##suffix(int l, int m, int c, int64_t n, int stride, const T* hidden, const T* sigmoids, \
                                       const T* grad, const T* u, T* grad_hidden, T* grad_grad, int threads) {         \
        gate_double_backward<T>(l, m, c, n, stride, hidden, sigmoids, grad, u, grad_hidden, grad_grad, threads);       \
    }                                                                                                                  \
    void add_node_rows_##suffix(int c, int64_t n, const int64_t* s, const int64_t* t, const T* of_source,              \
                                const T* of_target, T* out, int threads) {                                             \
        add_node_rows<T>(c, n, s, t, of_source, of_target, out, threads);                                              \
    }                                                                                                                  \
    void norm_silu_##suffix(int c, int64_t n, const T* x, const T* weight, const T* bias, T* out, int threads) {       \
        norm_silu<T>(c, n, x, weight, bias, out, threads);                                                             \
    }                                                                                                                  \
    void norm_silu_backward_##suffix(int c, int64_t n, const T* x, const T* weight, const T* bias, const T* grad,      \
                                     T* grad_x, int threads) {                                                         \
        norm_silu_backward<T>(c, n, x, weight, bias, grad, grad_x, threads);                                           \
    }                                                                                                                  \
    void spread_scalars_##suffix(int size, int c, int64_t n, const int64_t* t, const T* columns, const T* values,      \
                                 T* out, int threads) {                                                                \
        spread_scalars<T>(size, c, n, t, columns, values, out, threads);                                               \
    }                                                                                                                  \
    void spread_scalars_backward_##suffix(int size, int c, int64_t n, const int64_t* t, const T* columns,              \
                                          const T* values, const T* grad, T* grad_columns, T* grad_values,             \
                                          int threads) {                                                               \
        spread_scalars_backward<T>(size, c, n, t, columns, values, grad, grad_columns, grad_values, threads);          \
    }                                                                                                                  \
    void node_norm_##suffix(int l, int c, int64_t n, const T* x, const T* balance, const T* weight, const T* bias,     \
                            T* out, int threads) {                                                                     \
        node_norm<T>(l, c, n, x, balance, weight, bias, out, threads);                                                 \
    }                                                                                                                  \
    void node_norm_backward_##suffix(int l, int c, int64_t n, const T* x, const T* balance, const T* weight,           \
                                     const T* grad, T* grad_x, int threads) {                                          \
        node_norm_backward<T>(l, c, n, x, balance, weight, grad, grad_x, threads);                                     \
    }                                                                                                                  \
    void node_gate_##suffix(int l, int c, int64_t n, const T* gates, const T* hidden, T* out, int threads) {           \
        node_gate<T>(l, c, n, gates, hidden, out, threads);                                                            \
    }                                                                                                                  \
    void node_gate_backward_##suffix(int l, int c, int64_t n, const T* gates, const T* hidden, T* grad, T* grad_gates, \
                                     int threads) {                                                                    \
        node_gate_backward<T>(l, c, n, gates, hidden, grad, grad_gates, threads);                                      \
    }

extern "C" {
FOR_TYPE(float, f32)
FOR_TYPE(double, f64)
}
