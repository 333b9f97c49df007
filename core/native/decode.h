/* What a language model does for one token of one text, besides products and norms. */

/* A head of queries or keys: normalised if there is a weight for that, turned by the angles of its
   place (halves of the head are pairs), times a factor. */
INLINE void FN(turned)(const float *x, const float *weight, const float *cosines,
                       const float *sines, int64_t width, float eps, float factor, float *out) {
    int64_t half = width / 2;
    float own[256], squares = 0;
    if (weight) {
        SIMD_SUM(squares) for (int64_t i = 0; i < width; i++) squares += x[i] * x[i];
        float rstd = 1.0f / sqrtf(squares / (float)width + eps);
        SIMD for (int64_t i = 0; i < width; i++) own[i] = x[i] * rstd * weight[i];
        x = own;
    }
    SIMD for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        out[i] = (a * cosines[i] - b * sines[i]) * factor;
        out[half + i] = (b * cosines[i] + a * sines[i]) * factor;
    }
}

enum { FN(SPAN) = 64 }; /* keys whose scores are held at once */

/* Weighted sum of n values of a width, a multiple of 16, added to out. */
INLINE void FN(weighted)(const float *scores, const float *values, int64_t n, int64_t width,
                         float *out) {
    int64_t d = 0;
    for (; d + 4 * LANES <= width; d += 4 * LANES) {
        VEC sums[4];
        UNROLL for (int k = 0; k < 4; k++) sums[k] = FN(load)(out + d + k * LANES, LANES);
        for (int64_t j = 0; j < n; j++)
            UNROLL for (int k = 0; k < 4; k++)
                sums[k] += scores[j] * FN(load)(values + j * width + d + k * LANES, LANES);
        UNROLL for (int k = 0; k < 4; k++) FN(store)(out + d + k * LANES, sums[k], LANES);
    }
    for (; d < width; d += LANES) {
        VEC sum = FN(load)(out + d, LANES);
        for (int64_t j = 0; j < n; j++) sum += scores[j] * FN(load)(values + j * width + d, LANES);
        FN(store)(out + d, sum, LANES);
    }
}

/* Attention of the newest token, whose key and value go into the cache: its queries look at those
   of the places [first, at].
   queries (group N, W), keys (N, W), values (N, W), all in one buffer; cosines and sines (W / 2);
   weights of norms of queries and keys (W) or none; cached keys and values (N, capacity, W); out
   (group N, W). ints: group, N, W, capacity, at, first. floats: scale, eps. Items: group N; each
   turns the new key for itself, so that none waits for another. */
KERNEL(attend_token) {
    int64_t group = a->n[0], width = a->n[2], at = a->n[4];
    const float *queries = a->p[0], *k = queries + group * a->n[1] * width,
                *v = k + a->n[1] * width;
    for (int64_t g = begin; g < end; g++) {
        int64_t h = g / group;
        float *keys = (float *)a->p[5] + h * a->n[3] * width;
        float *values = (float *)a->p[6] + h * a->n[3] * width;
        float *out = (float *)a->p[7] + g * width;
        float q[256], own[256], scores[FN(SPAN)], top = 0, sum = 1;
        FN(turned)(queries + g * width, a->p[3], a->p[1], a->p[2], width, a->f[1], a->f[0], q);
        FN(turned)(k + h * width, a->p[4], a->p[1], a->p[2], width, a->f[1], 1.0f, own);
        SIMD_SUM(top) for (int64_t i = 0; i < width; i++) top += q[i] * own[i];
        memcpy(out, v + h * width, sizeof(float) * (size_t)width);
        if (g % group == 0) {
            memcpy(keys + at * width, own, sizeof(float) * (size_t)width);
            memcpy(values + at * width, v + h * width, sizeof(float) * (size_t)width);
        }
        for (int64_t from = a->n[5]; from < at; from += FN(SPAN)) {
            int64_t n = from + FN(SPAN) < at ? FN(SPAN) : at - from;
            for (int64_t j = 0; j < n; j++) {
                const float *key = keys + (from + j) * width;
                float s = 0;
                SIMD_SUM(s) for (int64_t i = 0; i < width; i++) s += q[i] * key[i];
                scores[j] = s;
            }
            float best = FN(row_max)(scores, n), before = top, added = 0;
            top = best > top ? best : top;
            float kept = FN(exp)(before - top);
            SIMD_SUM(added) for (int64_t j = 0; j < n; j++) {
                float e = FN(exp)(scores[j] - top);
                scores[j] = e;
                added += e;
            }
            sum = sum * kept + added;
            SIMD for (int64_t i = 0; i < width; i++) out[i] *= kept;
            FN(weighted)(scores, values + from * width, n, width, out);
        }
        SIMD for (int64_t i = 0; i < width; i++) out[i] /= sum;
    }
}

/* gate and up, one behind the other -> silu(gate) up. ints: how many of each. */
KERNEL(gated) {
    const float *gate = a->p[0], *up = gate + a->n[0];
    float *out = a->p[1];
    SIMD for (int64_t i = begin; i < end; i++)
        out[i] = gate[i] * FN(sigmoid_value)(gate[i]) * up[i];
}

/* x is added to out. */
KERNEL(added) {
    const float *x = a->p[0];
    float *out = a->p[1];
    SIMD for (int64_t i = begin; i < end; i++) out[i] += x[i];
}
