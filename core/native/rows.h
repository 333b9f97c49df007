/* Softmax and normalisations over a matrix of rows (M, C): along each row, or for each column
 * (the channels of channels-last memory). */

/* Vectors, because clang does not vectorise a maximum that must let NaN pass. */
INLINE float FN(row_max)(const float *x, int64_t d) {
    VEC top[4], low = (VEC){0} - INFINITY;
    int64_t i = 0;
    UNROLL for (int k = 0; k < 4; k++) top[k] = low;
    for (; i + 4 * LANES <= d; i += 4 * LANES)
        UNROLL for (int k = 0; k < 4; k++) {
            VEC v = *(const VEC *)(x + i + k * LANES);
            BITS above = v > top[k];
            top[k] = (VEC)(((BITS)v & above) | ((BITS)top[k] & ~above));
        }
    float best, *lanes = (float *)top;
    UNROLL for (int half = 2 * LANES; half; half /= 2)
        for (int k = 0; k < half; k++)
            lanes[k] = lanes[k + half] > lanes[k] ? lanes[k + half] : lanes[k];
    best = lanes[0];
    for (; i < d; i++) best = x[i] > best ? x[i] : best;
    return best;
}

/* x -> y, and if wanted the logsumexp of each row (M); a row of -inf gives zeros and 0.
   ints: row length. */
KERNEL(softmax) {
    int64_t d = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)a->p[0] + r * d;
        float *y = (float *)a->p[1] + r * d, top = FN(row_max)(x, d), sum = 0.0f;
        top = top == -INFINITY ? 0.0f : top;
        SIMD_SUM(sum) for (int64_t i = 0; i < d; i++) {
            float e = FN(exp)(x[i] - top);
            y[i] = e;
            sum += e;
        }
        float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
        SIMD for (int64_t i = 0; i < d; i++) y[i] *= scale;
        if (a->p[2]) ((float *)a->p[2])[r] = sum == 0.0f ? 0.0f : top + logf(sum);
    }
}

/* x -> y. ints: row length. A row of -inf stays as it is. */
KERNEL(log_softmax) {
    int64_t d = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)a->p[0] + r * d;
        float *y = (float *)a->p[1] + r * d, top = FN(row_max)(x, d), sum = 0.0f;
        top = top == -INFINITY ? 0.0f : top;
        SIMD_SUM(sum) for (int64_t i = 0; i < d; i++) sum += FN(exp)(x[i] - top);
        float log_sum = sum == 0.0f ? 0.0f : logf(sum);
        SIMD for (int64_t i = 0; i < d; i++) y[i] = (x[i] - top) - log_sum;
    }
}

/* g, y -> g - exp(y) sum(g) */
KERNEL(log_softmax_backward) {
    int64_t d = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *g = (const float *)a->p[0] + r * d, *y = (const float *)a->p[1] + r * d;
        float *dx = (float *)a->p[2] + r * d, sum = 0.0f;
        SIMD_SUM(sum) for (int64_t i = 0; i < d; i++) sum += g[i];
        SIMD for (int64_t i = 0; i < d; i++) dx[i] = g[i] - FN(exp)(y[i]) * sum;
    }
}

/* g, y -> y (g - sum(g y)) */
KERNEL(softmax_backward) {
    int64_t d = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *g = (const float *)a->p[0] + r * d, *y = (const float *)a->p[1] + r * d;
        float *dx = (float *)a->p[2] + r * d, sum = 0.0f;
        SIMD_SUM(sum) for (int64_t i = 0; i < d; i++) sum += g[i] * y[i];
        SIMD for (int64_t i = 0; i < d; i++) dx[i] = y[i] * (g[i] - sum);
    }
}

/* x, weight, bias -> y, mean (M), rstd (M). ints: row length, whether to centre (0: RMS norm);
   floats: epsilon. */
KERNEL(layer_norm) {
    const float *w = a->p[1], *b = a->p[2];
    float *means = a->p[4], *rstds = a->p[5];
    int64_t d = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)a->p[0] + r * d;
        float *y = (float *)a->p[3] + r * d, mean = 0.0f, var = 0.0f;
        if (a->n[1]) {
            SIMD_SUM(mean) for (int64_t i = 0; i < d; i++) mean += x[i];
            mean /= (float)d;
        }
        SIMD_SUM(var) for (int64_t i = 0; i < d; i++) var += (x[i] - mean) * (x[i] - mean);
        float rstd = 1.0f / sqrtf(var / (float)d + a->f[0]);
        SIMD for (int64_t i = 0; i < d; i++) y[i] = (x[i] - mean) * rstd * w[i] + b[i];
        means[r] = mean;
        rstds[r] = rstd;
    }
}

/* g, x, weight, mean, rstd -> dx */
KERNEL(layer_norm_backward) {
    const float *w = a->p[2];
    int64_t d = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *g = (const float *)a->p[0] + r * d, *x = (const float *)a->p[1] + r * d;
        float mean = ((const float *)a->p[3])[r], rstd = ((const float *)a->p[4])[r];
        float *dx = (float *)a->p[5] + r * d, sum = 0.0f, dot = 0.0f;
        SIMD_SUM(sum, dot) for (int64_t i = 0; i < d; i++) {
            sum += g[i] * w[i];
            dot += g[i] * w[i] * (x[i] - mean);
        }
        sum = a->n[1] ? sum / (float)d : 0.0f;
        dot *= rstd * rstd / (float)d;
        SIMD for (int64_t i = 0; i < d; i++)
            dx[i] = rstd * (g[i] * w[i] - sum - (x[i] - mean) * dot);
    }
}

/* Sums over columns: float32 over short runs of rows, float64 over the runs of a block; the
   caller adds the blocks. Tiles of columns keep the sums in registers. */
enum { FN(TILE) = 64, FN(RUN) = 32 };

#define COLUMN_TILES(call, c) \
    for (int64_t from = 0; from < c; from += FN(TILE)) { \
        if (from + FN(TILE) <= c) call(FN(TILE)); \
        else call((int)(c - from)); \
    }

/* Two sums of a tile: g, and g (x - mean) rstd with a mean and rstd for each row (kind ROWS), or
   with a mean for each column (COLUMNS), or only the first (ALONE). */
enum { FN(ALONE), FN(COLUMNS), FN(ROWS) };

INLINE void FN(sums_tile)(const Args *a, int64_t begin, int64_t end, int64_t c, int64_t from,
                          int width, int kind, double *out) {
    const float *mean = a->p[2], *rstd = a->p[3];
    double first[FN(TILE)] = {0}, second[FN(TILE)] = {0};
    for (int64_t r = begin; r < end;) {
        float s[FN(TILE)] = {0}, t[FN(TILE)] = {0};
        int64_t stop = r + FN(RUN) < end ? r + FN(RUN) : end;
        for (; r < stop; r++) {
            const float *g = (const float *)a->p[0] + r * c + from;
            const float *x = kind == FN(ALONE) ? g : (const float *)a->p[1] + r * c + from;
            SIMD for (int i = 0; i < width; i++) {
                s[i] += g[i];
                if (kind == FN(ROWS)) t[i] += g[i] * (x[i] - mean[r]) * rstd[r];
                if (kind == FN(COLUMNS)) t[i] += g[i] * (x[i] - mean[from + i]);
            }
        }
        SIMD for (int i = 0; i < width; i++) first[i] += s[i], second[i] += t[i];
    }
    memcpy(out + from, first, sizeof(double) * (size_t)width);
    if (kind != FN(ALONE)) memcpy(out + c + from, second, sizeof(double) * (size_t)width);
}

/* g -> partial sums (blocks, 2, C), the second unused */
KERNEL(column_sum) {
    int64_t c = a->n[0];
    double *out = (double *)a->p[1] + begin / a->grain * 2 * c;
#define CALL(width) FN(sums_tile)(a, begin, end, c, from, width, FN(ALONE), out)
    COLUMN_TILES(CALL, c)
#undef CALL
}

/* g, x, mean (M), rstd (M) -> partial sums (blocks, 2, C) of g and of g xhat */
KERNEL(layer_norm_sums) {
    int64_t c = a->n[0];
    double *out = (double *)a->p[4] + begin / a->grain * 2 * c;
#define CALL(width) FN(sums_tile)(a, begin, end, c, from, width, FN(ROWS), out)
    COLUMN_TILES(CALL, c)
#undef CALL
}

/* g, x, mean (C) -> partial sums (blocks, 2, C) of g and of g (x - mean) */
KERNEL(channel_sums) {
    int64_t c = a->n[0];
    double *out = (double *)a->p[3] + begin / a->grain * 2 * c;
#define CALL(width) FN(sums_tile)(a, begin, end, c, from, width, FN(COLUMNS), out)
    COLUMN_TILES(CALL, c)
#undef CALL
}

/* Mean and sum of squared deviations of a tile: two passes over each run of rows, which stays
   in cache, then the runs are merged (Chan et al. 1983). */
INLINE void FN(stats_tile)(const float *x, int64_t begin, int64_t end, int64_t c, int64_t from,
                           int width, double *out) {
    double mean[FN(TILE)] = {0}, squares[FN(TILE)] = {0};
    for (int64_t r = begin; r < end; r += FN(RUN)) {
        float s[FN(TILE)] = {0}, q[FN(TILE)] = {0};
        int64_t rows = r + FN(RUN) < end ? FN(RUN) : end - r, seen = r - begin;
        double share = (double)rows / (double)(seen + rows);
        for (int64_t k = 0; k < rows; k++)
            SIMD for (int i = 0; i < width; i++) s[i] += x[(r + k) * c + from + i];
        SIMD for (int i = 0; i < width; i++) s[i] /= (float)rows;
        for (int64_t k = 0; k < rows; k++)
            SIMD for (int i = 0; i < width; i++) {
                float deviation = x[(r + k) * c + from + i] - s[i];
                q[i] += deviation * deviation;
            }
        SIMD for (int i = 0; i < width; i++) {
            double step = s[i] - mean[i];
            mean[i] += step * share;
            squares[i] += q[i] + step * step * share * (double)seen;
        }
    }
    memcpy(out + from, mean, sizeof(double) * (size_t)width);
    memcpy(out + c + from, squares, sizeof(double) * (size_t)width);
}

/* x -> partial (blocks, 2, C): mean, and sum of squared deviations from it */
KERNEL(channel_stats) {
    int64_t c = a->n[0];
    double *out = (double *)a->p[1] + begin / a->grain * 2 * c;
#define CALL(width) FN(stats_tile)(a->p[0], begin, end, c, from, width, out)
    COLUMN_TILES(CALL, c)
#undef CALL
}
#undef COLUMN_TILES

/* x, mean, scale, shift -> (x - mean) scale + shift, clamped to floats [low, high] */
KERNEL(channel_affine) {
    const float *mean = a->p[1], *scale = a->p[2], *shift = a->p[3];
    float low = a->f[0], high = a->f[1];
    int64_t c = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)a->p[0] + r * c;
        float *y = (float *)a->p[4] + r * c;
        SIMD for (int64_t i = 0; i < c; i++) {
            float v = (x[i] - mean[i]) * scale[i] + shift[i];
            v = v < low ? low : v;
            y[i] = v > high ? high : v;
        }
    }
}

/* g, x, mean, and three factors for each channel -> by_g g + by_x (x - mean) + constant */
KERNEL(batch_norm_backward) {
    const float *mean = a->p[2], *by_g = a->p[3], *by_x = a->p[4], *constant = a->p[5];
    int64_t c = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *g = (const float *)a->p[0] + r * c, *x = (const float *)a->p[1] + r * c;
        float *dx = (float *)a->p[6] + r * c;
        SIMD for (int64_t i = 0; i < c; i++)
            dx[i] = by_g[i] * g[i] + by_x[i] * (x[i] - mean[i]) + constant[i];
    }
}
