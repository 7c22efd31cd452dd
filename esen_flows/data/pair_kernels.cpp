// What neighbour tables compute at every geometry, in one pass through the pairs: see `neighbor_tables.py`, whose torch
// operations give the same numbers. Vectors are rows of three doubles in Angstrom, indices int64. Threads share the pairs
// or the structures; every number is computed by one thread in one order, so that their number does not matter.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

constexpr int64_t FEW = 10000;  // rows that are not worth waking other threads for

inline void row_times(const double* row, const double* matrix, double* result) {
    for (int k = 0; k < 3; k++) result[k] = row[0] * matrix[k] + row[1] * matrix[3 + k] + row[2] * matrix[6 + k];
}

}  // namespace

extern "C" {

// Vectors and squared lengths of all pairs, and which are within the cutoff. places: (images, 3), memory for the vectors
// of the lattice translations. reverse: null, or the index of the reverse of each pair; then a pair is within the cutoff
// exactly if its reverse is.
void pair_vectors(int64_t images, int64_t pairs, const int64_t* image_owner, const double* shifts, const double* cells,
                  const double* positions, const int64_t* source, const int64_t* target, const int64_t* image,
                  const int64_t* reverse, const double* cutoff, double* places, double* vectors, double* squared,
                  uint8_t* within, int threads) {
    const double limit = *cutoff * *cutoff;
#pragma omp parallel num_threads(threads) if (pairs > FEW)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < images; i++) row_times(shifts + 3 * i, cells + 9 * image_owner[i], places + 3 * i);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < pairs; p++) {
            const double *from = positions + 3 * target[p], *to = positions + 3 * source[p], *at = places + 3 * image[p];
            double* vector = vectors + 3 * p;
            for (int k = 0; k < 3; k++) vector[k] = to[k] - from[k] + at[k];
            squared[p] = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2];
        }
#pragma omp for schedule(static)
        for (int64_t p = 0; p < pairs; p++)
            within[p] = (reverse ? std::min(squared[p], squared[reverse[p]]) : squared[p]) <= limit;
    }
}

// Number of pairs within the cutoff and smallest squared length of each structure, infinite without pairs.
void pair_summary(int64_t structures, const int64_t* offsets, const double* squared, const uint8_t* within,
                  double* numbers, double* smallest, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (offsets[structures] > FEW)
    for (int64_t s = 0; s < structures; s++) {
        int64_t count = 0;
        double least = INFINITY;
        bool ordered = true;  // false where a coordinate is NaN, which no comparison finds
        for (int64_t p = offsets[s]; p < offsets[s + 1]; p++) {
            count += within[p];
            least = squared[p] < least ? squared[p] : least;
            ordered &= squared[p] == squared[p];
        }
        numbers[s] = double(count);
        smallest[s] = ordered ? least : NAN;
    }
}

// The pairs within the cutoff, in their order.
void pairs_within(int64_t pairs, const uint8_t* within, const int64_t* source, const int64_t* target,
                  const int64_t* system, const double* vectors, int64_t* kept, int64_t* kept_source,
                  int64_t* kept_target, int64_t* kept_system, double* kept_vectors) {
    int64_t next = 0;
    for (int64_t p = 0; p < pairs; p++) {
        if (!within[p]) continue;
        kept[next] = p, kept_source[next] = source[p], kept_target[next] = target[p], kept_system[next] = system[p];
        for (int k = 0; k < 3; k++) kept_vectors[3 * next + k] = vectors[3 * p + k];
        next++;
    }
}

// Whether atoms have moved so far that pairs from outside the tables may be within the cutoff; see
// `NeighborTables.status`. inverses: inverse cells at the search.
void search_needed(int64_t structures, const int64_t* offsets, const double* searched, const double* inverses,
                   const double* positions, const double* cells, const double* radii, double* needed, int threads) {
    const double cutoff = radii[0], reach = radii[1];
#pragma omp parallel for num_threads(threads) schedule(static) if (offsets[structures] > FEW)
    for (int64_t s = 0; s < structures; s++) {
        double map[9], moved[3], mean[3] = {}, distortion = 0, farthest = 0;
        for (int k = 0; k < 3; k++) row_times(inverses + 9 * s + 3 * k, cells + 9 * s, map + 3 * k);
        for (int k = 0; k < 9; k++) distortion += (map[k] - (k % 4 == 0)) * (map[k] - (k % 4 == 0));
        const auto displacement = [&](int64_t atom) {
            row_times(searched + 3 * atom, map, moved);
            for (int k = 0; k < 3; k++) moved[k] = positions[3 * atom + k] - moved[k];
        };
        const int64_t count = std::max<int64_t>(1, offsets[s + 1] - offsets[s]);
        for (int64_t atom = offsets[s]; atom < offsets[s + 1]; atom++) {
            displacement(atom);
            for (int k = 0; k < 3; k++) mean[k] += moved[k];
        }
        for (int k = 0; k < 3; k++) mean[k] /= double(count);
        bool known = true;  // false for NaN
        for (int64_t atom = offsets[s]; atom < offsets[s + 1]; atom++) {
            displacement(atom);
            double length = 0;
            for (int k = 0; k < 3; k++) length += (moved[k] - mean[k]) * (moved[k] - mean[k]);
            known &= length == length;
            farthest = std::max(farthest, length);
        }
        const double room = reach * (1 - std::sqrt(distortion)) - cutoff;
        needed[s] = !(known && 2 * std::sqrt(farthest) <= room);
    }
}
}
