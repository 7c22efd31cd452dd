// Linewidths of the modes of one q-point: what `collisions.py` and `isotopes.py` do in numpy, without temporaries.
//
// Weights come first, because only a few per cent of the combinations (s0, s1, s2) conserve energy on any tetrahedron;
// the interaction is then computed for these alone. Vectors run over the tetrahedra for the weights and over the last
// cartesian index for the interaction, so that all loads are contiguous. One call does one q-point on one thread; threads
// run over q-points, which share nothing.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int LANES = 8;
// Unaligned vectors of doubles: one AVX-512 register, or two or four narrower ones on other processors.
typedef double Vector __attribute__((vector_size(8 * LANES), aligned(8)));

inline Vector load(const double* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(double* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }
inline double sum(Vector v) {
    double total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

// Stands for an interval of no length in a quotient: see `tetrahedra.NO_LENGTH_THZ`.
constexpr double NO_LENGTH = 1e-30;
constexpr double CUTOFF = 1e-4;  // THz; as collisions.CUTOFF_THZ

constexpr double TIE = 1e-6;     // THz; as isotopes.TIE_THZ

// The phonons on the grid; the order of the fields is that of `Kernel._arrays`.
struct Phonons {
    int64_t bands, size, steps, tetrahedra, temperatures;  // tetrahedra: a multiple of LANES, padded with share 0
    const double* frequencies;    // (size, bands)
    const double* modes;          // (size, bands, 2, bands): mode, re/im, cartesian
    const double* occupations;    // (temperatures, size, bands)
    const int32_t* plus;          // (size, steps)
    const int32_t* minus;         // (size, steps)
    const int32_t* blocks;        // (size, bands)
    const int32_t* corners;       // (3, tetrahedra) into the steps
    const double* shares;         // (tetrahedra)
};

// The knots of the splines of eight tetrahedra for one pair of modes, and the quotients that do not depend on x.
struct Knots {
    Vector t0, t1, t2, t3, t4;
    Vector i01, i12, i23, i34;            // 1 / (t1 - t0), ...
    Vector i02, i13, i24, i03, i14, i04;

    Knots(Vector centre, Vector a, Vector b, Vector c) {
        const Vector low = smaller(a, b), high = larger(a, b);
        const Vector first = smaller(low, c), rest = larger(low, c);
        const Vector second = smaller(rest, high), third = larger(rest, high);
        t0 = smaller(centre, first);
        t1 = smaller(centre, second);
        t2 = smaller(larger(centre, first), third);
        t3 = larger(centre, second);
        t4 = larger(centre, third);
        const Vector none = {NO_LENGTH, NO_LENGTH, NO_LENGTH, NO_LENGTH, NO_LENGTH, NO_LENGTH, NO_LENGTH, NO_LENGTH};
        // One division for several quotients: the reciprocal of a product times the other factors.
        {
            const Vector a01 = larger(t1 - t0, none), a12 = larger(t2 - t1, none);
            const Vector a23 = larger(t3 - t2, none), a34 = larger(t4 - t3, none);
            const Vector left = a01 * a12, right = a23 * a34, inverse = 1.0 / (left * right);
            const Vector of_left = inverse * right, of_right = inverse * left;
            i01 = of_left * a12, i12 = of_left * a01, i23 = of_right * a34, i34 = of_right * a23;
        }
        {
            const Vector a02 = larger(t2 - t0, none), a13 = larger(t3 - t1, none), a24 = larger(t4 - t2, none);
            const Vector left = a02 * a13, inverse = 1.0 / (left * a24), of_left = inverse * a24;
            i02 = of_left * a13, i13 = of_left * a02, i24 = inverse * left;
        }
        {
            const Vector a03 = larger(t3 - t0, none), a14 = larger(t4 - t1, none), a04 = larger(t4 - t0, none);
            const Vector left = a03 * a14, inverse = 1.0 / (left * a04), of_left = inverse * a04;
            i03 = of_left * a14, i14 = of_left * a03, i04 = inverse * left;
        }
    }

    // N(x) / (t4 - t0), by de Boor's recursion; see `tetrahedra.spline`.
    Vector spline(Vector x) const {
        const Vector zero = {}, one = zero + 1.0;
        const auto rise = [&](Vector from, Vector inverse) { return smaller(larger((x - from) * inverse, zero), one); };
        const Vector r0 = rise(t0, i01), r1 = rise(t1, i12), r2 = rise(t2, i23), r3 = rise(t3, i34);
        const Vector l0 = r0 - r1, l1 = r1 - r2, l2 = r2 - r3;
        const Vector above0 = x - t0, below4 = t4 - x;
        const Vector q0 = above0 * i02 * l0 + (t3 - x) * i13 * l1;
        const Vector q1 = (x - t1) * i13 * l1 + below4 * i24 * l2;
        return (above0 * i03 * q0 + below4 * i14 * q1) * i04;
    }
};

// Memory of one call, made once.
struct Work {
    std::vector<double> second, third;          // (bands, 3, tetrahedra) values at the corners
    std::vector<double> low1, high1, low2, high2;
    std::vector<double> weights;                // (2, s0, s1, s2)
    std::vector<double> points, signs;          // energies at which one pair of modes is evaluated
    std::vector<int64_t> targets;
    std::vector<Vector> sums;
    std::vector<double> tensor, half;           // (2, b, c) at q2 for one s0; (2, c) for one s1
    std::vector<double> averaged;

    explicit Work(const Phonons& p)
        : second(3 * p.bands * p.tetrahedra), third(second.size()), low1(p.bands), high1(p.bands), low2(p.bands),
          high2(p.bands), weights(2 * p.bands * p.bands * p.bands), points(2 * p.bands), signs(2 * p.bands),
          targets(2 * p.bands), sums(2 * p.bands), tensor(2 * p.bands * p.bands), half(2 * p.bands + LANES),
          averaged(p.bands * p.bands) {}
};

void corner_values(const Phonons& p, const int32_t* neighbours, double* values, double* low, double* high) {
    for (int64_t s = 0; s < p.bands; s++) {
        low[s] = INFINITY, high[s] = -INFINITY;
        for (int64_t r = 0; r < p.steps; r++) {
            const double value = p.frequencies[neighbours[r] * p.bands + s];
            low[s] = std::min(low[s], value), high[s] = std::max(high[s], value);
        }
    }
    for (int64_t k = 0; k < 3; k++)
        for (int64_t t = 0; t < p.tetrahedra; t++) {
            const double* at = p.frequencies + neighbours[p.corners[k * p.tetrahedra + t]] * p.bands;
            for (int64_t s = 0; s < p.bands; s++) values[(s * 3 + k) * p.tetrahedra + t] = at[s];
        }
}

// Adds the splines of f = third + sign * second, summed over the tetrahedra, to the weights that `targets` name.
void add_splines(const Phonons& p, Work& work, int64_t count, const double* second, const double* third, double sign,
                 double centre) {
    const Vector middle = Vector{} + centre, factor = Vector{} + sign;
    std::fill(work.sums.begin(), work.sums.begin() + count, Vector{});
    for (int64_t t = 0; t < p.tetrahedra; t += LANES) {
        const auto corner = [&](int64_t k) {
            return load(third + k * p.tetrahedra + t) + factor * load(second + k * p.tetrahedra + t);
        };
        const Knots knots(middle, corner(0), corner(1), corner(2));
        const Vector share = load(p.shares + t);
        for (int64_t i = 0; i < count; i++) work.sums[i] += share * knots.spline(Vector{} + work.points[i]);
    }
    for (int64_t i = 0; i < count; i++) work.weights[work.targets[i]] += work.signs[i] * sum(work.sums[i]);
}

// Weights of delta(w0 - w1 - w2), and of delta(w0 + w1 - w2) - delta(w0 - w1 + w2), for all modes of a triplet.
void integration_weights(const Phonons& p, Work& work, int64_t q0, int64_t q1, int64_t q2) {
    const int64_t n = p.bands, cube = n * n * n;
    const double *w0 = p.frequencies + q0 * n, *w1 = p.frequencies + q1 * n, *w2 = p.frequencies + q2 * n;
    std::fill(work.weights.begin(), work.weights.end(), 0.0);
    corner_values(p, p.plus + q1 * p.steps, work.second.data(), work.low1.data(), work.high1.data());
    corner_values(p, p.minus + q2 * p.steps, work.third.data(), work.low2.data(), work.high2.data());
    for (int64_t s1 = 0; s1 < n; s1++)
        for (int64_t s2 = 0; s2 < n; s2++) {
            const double *second = work.second.data() + 3 * s1 * p.tetrahedra;
            const double *third = work.third.data() + 3 * s2 * p.tetrahedra;
            int64_t count = 0;
            const auto reach = [&](double x, double low, double high, int64_t target, double sign) {
                if (low < x && x < high) work.points[count] = x, work.targets[count] = target, work.signs[count++] = sign;
            };
            for (int64_t s0 = 0; s0 < n; s0++)
                reach(w0[s0], work.low1[s1] + work.low2[s2], work.high1[s1] + work.high2[s2], (s0 * n + s1) * n + s2, 1);
            if (count) add_splines(p, work, count, second, third, 1, w2[s2] + w1[s1]);
            count = 0;
            for (int64_t s0 = 0; s0 < n; s0++) {
                const double low = work.low2[s2] - work.high1[s1], high = work.high2[s2] - work.low1[s1];
                reach(w0[s0], low, high, cube + (s0 * n + s1) * n + s2, 1);
                reach(-w0[s0], low, high, cube + (s0 * n + s1) * n + s2, -1);
            }
            if (count) add_splines(p, work, count, second, third, -1, w2[s2] - w1[s1]);
        }
}

bool has_degenerate(const int32_t* blocks, int64_t n) {
    for (int64_t s = 0; s < n; s++)
        if (blocks[s] != s) return true;
    return false;
}

// Replaces the weights by their means over degenerate modes of q1 and q2, which no eigenvector can then depend on.
void average_degenerate(const Phonons& p, Work& work, int64_t q1, int64_t q2) {
    const int64_t n = p.bands;
    const int32_t *b1 = p.blocks + q1 * n, *b2 = p.blocks + q2 * n;
    if (!has_degenerate(b1, n) && !has_degenerate(b2, n)) return;
    for (int64_t plane = 0; plane < 2 * n; plane++) {
        double* weights = work.weights.data() + plane * n * n;
        for (int64_t i = 0; i < n;) {
            int64_t i_end = i + 1;
            while (i_end < n && b1[i_end] == b1[i]) i_end++;
            for (int64_t j = 0; j < n;) {
                int64_t j_end = j + 1;
                while (j_end < n && b2[j_end] == b2[j]) j_end++;
                double mean = 0;
                for (int64_t s1 = i; s1 < i_end; s1++)
                    for (int64_t s2 = j; s2 < j_end; s2++) mean += weights[s1 * n + s2];
                mean /= double((i_end - i) * (j_end - j));
                for (int64_t s1 = i; s1 < i_end; s1++)
                    for (int64_t s2 = j; s2 < j_end; s2++) weights[s1 * n + s2] = mean;
                j = j_end;
            }
            i = i_end;
        }
    }
}

// The last transform: the tensor of one mode of q0 at q2, (2, b, c) of real and imaginary parts.
template <int N>
void tensor_at(const Phonons& p, const double* partial, int64_t box, int64_t stride, const double* phases, double* tensor) {
    const int64_t n = N ? N : p.bands, square = n * n, plane = box * stride;
    std::fill(tensor, tensor + 2 * square, 0.0);
    for (int64_t r = 0; r < box; r++) {
        const double c = phases[r], s = phases[box + r];
        const double *re = partial + r * stride, *im = partial + plane + r * stride;
        for (int64_t i = 0; i < square; i++) {
            tensor[i] += c * re[i] - s * im[i];
            tensor[square + i] += c * im[i] + s * re[i];
        }
    }
}

// The tensor with one mode of q1: (2, c).
template <int N>
void contracted(const Phonons& p, const double* tensor, const double* mode, double* half) {
    const int64_t n = N ? N : p.bands, square = n * n;
    std::fill(half, half + 2 * n, 0.0);
    for (int64_t b = 0; b < n; b++) {
        const double re = mode[b], im = mode[n + b];
        const double *x = tensor + b * n, *y = tensor + square + b * n;
        for (int64_t c = 0; c < n; c++) {
            half[c] += re * x[c] - im * y[c];
            half[n + c] += re * y[c] + im * x[c];
        }
    }
}

// |V|^2 from that and one mode of q2.
template <int N>
double squared(const Phonons& p, const double* half, const double* mode) {
    const int64_t n = N ? N : p.bands;
    double re = 0, im = 0;
    for (int64_t c = 0; c < n; c++) {
        re += half[c] * mode[c] - half[n + c] * mode[n + c];
        im += half[c] * mode[n + c] + half[n + c] * mode[c];
    }
    return re * re + im * im;
}

// Adds a triplet to the linewidths (temperatures, modes) of the modes first .. first + count of q0.
template <int N>
void add_triplet(const Phonons& p, Work& work, const double* partial, int64_t box, int64_t first, int64_t count,
                 const double* phases, int64_t q1, int64_t q2, double multiplicity, double* linewidths) {
    const int64_t n = N ? N : p.bands, square = n * n, cube = n * square, stride = count * square;
    for (int64_t m = 0; m < count; m++) {
        const int64_t s0 = first + m;
        const double *decay = work.weights.data() + s0 * square, *other = decay + cube;
        bool there = false;
        for (int64_t s1 = 0; s1 < n; s1++) {
            bool any = false;
            for (int64_t s2 = 0; s2 < n; s2++) any |= decay[s1 * n + s2] != 0 || other[s1 * n + s2] != 0;
            if (!any || p.frequencies[q1 * n + s1] <= CUTOFF) continue;
            if (!there) tensor_at<N>(p, partial + m * square, box, stride, phases, work.tensor.data());
            there = true;
            contracted<N>(p, work.tensor.data(), p.modes + (q1 * n + s1) * 2 * n, work.half.data());
            for (int64_t s2 = 0; s2 < n; s2++) {
                const double g1 = decay[s1 * n + s2], g2 = other[s1 * n + s2];
                if ((g1 == 0 && g2 == 0) || p.frequencies[q2 * n + s2] <= CUTOFF) continue;
                const double strength = multiplicity * squared<N>(p, work.half.data(), p.modes + (q2 * n + s2) * 2 * n);
                for (int64_t t = 0; t < p.temperatures; t++) {
                    const double n1 = p.occupations[(t * p.size + q1) * n + s1];
                    const double n2 = p.occupations[(t * p.size + q2) * n + s2];
                    linewidths[t * n + s0] += strength * ((n1 + n2 + 1) * g1 + (n1 - n2) * g2);
                }
            }
        }
    }
}

using AddTriplet = decltype(&add_triplet<0>);

AddTriplet add_triplet_of(int64_t bands) {
    switch (bands) {  // a known number of bands lets the compiler unroll: the usual cells
        case 6: return add_triplet<6>;
        case 9: return add_triplet<9>;
        case 12: return add_triplet<12>;
        case 15: return add_triplet<15>;
        case 18: return add_triplet<18>;
        case 24: return add_triplet<24>;
        case 30: return add_triplet<30>;
        default: return add_triplet<0>;
    }
}

// Splines at x with the rule for values that equal x; see `isotopes.tied_spline`.
Vector tied_splines(Vector x, Vector centre, Vector a, Vector b, Vector c) {
    const Vector zero = {}, one = zero + 1.0, tie = zero + TIE;
    const auto tied = [&](Vector value) { return (value - x < tie) & (x - value < tie) ? x : value; };
    centre = tied(centre), a = tied(a), b = tied(b), c = tied(c);
    const auto equal = [&](Vector value) { return value == x ? one : zero; };
    const Vector knots_at_x = 2.0 * equal(centre) + equal(a) + equal(b) + equal(c);
    const Knots knots(centre, a, b, c);
    const Vector found = knots_at_x == zero + 4.0 ? 0.5 * knots.i04 : knots.spline(x);
    return knots.t4 - knots.t0 < tie ? zero : found;
}

// Weights (s0, s) of delta(w0 - w) at one point q of the grid, averaged over degenerate modes there; whether there is any.
bool isotope_weights(const Phonons& p, Work& work, int64_t q0, int64_t q) {
    const int64_t n = p.bands;
    const double *w0 = p.frequencies + q0 * n, *w = p.frequencies + q * n;
    const int32_t* blocks = p.blocks + q * n;
    corner_values(p, p.plus + q * p.steps, work.second.data(), work.low1.data(), work.high1.data());
    std::fill(work.averaged.begin(), work.averaged.end(), 0.0);
    bool any = false;
    for (int64_t s = 0; s < n; s++)
        for (int64_t s0 = 0; s0 < n; s0++) {
            const double x = w0[s0];
            if (x <= CUTOFF || x <= work.low1[s] - TIE || x >= work.high1[s] + TIE) continue;
            Vector total = {};
            for (int64_t t = 0; t < p.tetrahedra; t += LANES) {
                const double* corners = work.second.data() + 3 * s * p.tetrahedra + t;
                total += load(p.shares + t) * tied_splines(Vector{} + x, Vector{} + w[s], load(corners),
                                                           load(corners + p.tetrahedra), load(corners + 2 * p.tetrahedra));
            }
            // A share of the mode's whole degenerate set at once.
            int64_t end = blocks[s] + 1;
            while (end < n && blocks[end] == blocks[s]) end++;
            const double share = sum(total) / double(end - blocks[s]);
            for (int64_t other = blocks[s]; other < end; other++) work.averaged[s0 * n + other] += share;
            any = any || share != 0;
        }
    return any;
}

}  // namespace

extern "C" {

// Phonon-phonon linewidths, (temperatures, bands), of the modes first .. first + count of q0.
// partial: (rows, 2, box, count, bands, bands), the tensor in these modes and on two axes of the grid; rows, addresses:
// which row, and which point of the third axis, the q2 of a triplet has; last_phases: (points of the third axis, 2, box).
void linewidths_of_point(
    int64_t bands, int64_t size, int64_t steps, int64_t tetrahedra, int64_t temperatures, const double* frequencies,
    const double* modes, const double* occupations, const int32_t* plus, const int32_t* minus, const int32_t* blocks,
    const int32_t* corners, const double* shares, int64_t point, int64_t first, int64_t count, int64_t box,
    int64_t triplets, const double* partial, const double* last_phases, const int64_t* second, const int64_t* third,
    const int64_t* rows, const int64_t* addresses, const double* multiplicities, double* linewidths) {
    const Phonons p{bands, size, steps, tetrahedra, temperatures, frequencies, modes, occupations, plus, minus, blocks,
                    corners, shares};
    const AddTriplet add = add_triplet_of(bands);
    Work work(p);
    for (int64_t i = 0; i < triplets; i++) {
        integration_weights(p, work, point, second[i], third[i]);
        average_degenerate(p, work, second[i], third[i]);
        add(p, work, partial + rows[i] * 2 * box * count * bands * bands, box, first, count,
            last_phases + addresses[i] * 2 * box, second[i], third[i], multiplicities[i], linewidths);
    }
}

// Sums of weights, mass variances and overlaps for the modes of q0: (bands), see `isotopes.isotope_sum`.
// eigenvectors: (size, bands, 2, bands) mode, re/im, cartesian; variances: (bands / 3).
void isotope_sums_of_point(
    int64_t bands, int64_t size, int64_t steps, int64_t tetrahedra, int64_t temperatures, const double* frequencies,
    const double* modes, const double* occupations, const int32_t* plus, const int32_t* minus, const int32_t* blocks,
    const int32_t* corners, const double* shares, int64_t point, const double* eigenvectors, const double* variances,
    double* sums) {
    const Phonons p{bands, size, steps, tetrahedra, temperatures, frequencies, modes, occupations, plus, minus, blocks,
                    corners, shares};
    Work work(p);
    for (int64_t q = 0; q < size; q++) {
        if (!isotope_weights(p, work, point, q)) continue;
        for (int64_t s0 = 0; s0 < bands; s0++)
            for (int64_t s = 0; s < bands; s++) {
                const double weight = work.averaged[s0 * bands + s];
                if (weight == 0) continue;
                const double* own = eigenvectors + (point * bands + s0) * 2 * bands;
                const double* other = eigenvectors + (q * bands + s) * 2 * bands;
                for (int64_t k = 0; k < bands / 3; k++) {
                    double re = 0, im = 0;
                    for (int64_t c = 3 * k; c < 3 * k + 3; c++) {
                        re += own[c] * other[c] + own[bands + c] * other[bands + c];
                        im += own[c] * other[bands + c] - own[bands + c] * other[c];
                    }
                    sums[s0] += weight * variances[k] * (re * re + im * im);
                }
            }
    }
}
}
