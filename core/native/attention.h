/* Attention without ever holding all the scores: a panel of queries at a time goes over blocks of
 * keys, keeps the largest score and the sum of each query, and adds up the values (online softmax:
 * Milakov and Gimelshein 2018; Dao et al. 2022). Scores of a block are held as (key, query), so
 * that keys and values are read where they lie and no sum goes across a vector. */

/* Register tiles: keys by a panel of queries over the width of the head, and queries by values
 * over keys. One function for each number of rows, out of line as in implicit.h. */
#define ROWS_OF(n) \
    TARGET static __attribute__((noinline)) void FN(score_tile_##n)( \
        const float *k, int64_t row, const float *q, int64_t length, float *sums) { \
        FN(tile)(n, k, row, 1, q, FN(PANEL), length, sums); \
    } \
    TARGET static __attribute__((noinline)) void FN(value_tile_##n)( \
        const float *p, int64_t row, const float *v, int64_t length, float *sums) { \
        FN(tile)(n, p, 1, FN(PANEL), v, row, length, sums); \
    }
ROWS_OF(1) ROWS_OF(2) ROWS_OF(3) ROWS_OF(4) ROWS_OF(5) ROWS_OF(6)
#if REGISTERS == 32
ROWS_OF(7) ROWS_OF(8) ROWS_OF(9) ROWS_OF(10) ROWS_OF(11) ROWS_OF(12)
#endif
#undef ROWS_OF
#define SCORE_TILE(n) FN(score_tile_##n)
#define VALUE_TILE(n) FN(value_tile_##n)
static const FN(Tile) FN(SCORE_TILES)[] = TILES_OF(SCORE_TILE);
static const FN(Tile) FN(VALUE_TILES)[] = TILES_OF(VALUE_TILE);
#undef SCORE_TILE
#undef VALUE_TILE

/* `rows` rows of values, copied so that a panel past the last column may be read. */
INLINE void FN(padded)(const float *v, int64_t stride, int64_t rows, int64_t width, float *out,
                       int64_t padded) {
    for (int64_t i = 0; i < rows; i++, v += stride, out += padded) {
        for (int64_t j = 0; j < width; j++) out[j] = v[j];
        for (int64_t j = width; j < padded; j++) out[j] = 0.0f;
    }
}

/* Scores (keys, PANEL) of a block made exponentials; `top` and `sum` of each query go on, and
 * `fade` is what the sums so far are multiplied by. */
INLINE void FN(exponentials)(float *s, int64_t keys, float *top, float *sum, float *fade) {
    float now[FN(PANEL)], base[FN(PANEL)], added[FN(PANEL)];
    SIMD for (int i = 0; i < FN(PANEL); i++) now[i] = top[i], added[i] = 0.0f;
    for (int64_t k = 0; k < keys; k++)
        SIMD for (int i = 0; i < FN(PANEL); i++)
            now[i] = s[k * FN(PANEL) + i] > now[i] ? s[k * FN(PANEL) + i] : now[i];
    SIMD for (int i = 0; i < FN(PANEL); i++) {
        base[i] = now[i] == -INFINITY ? 0.0f : now[i];
        fade[i] = FN(exp)(top[i] - base[i]);
        top[i] = now[i];
    }
    for (int64_t k = 0; k < keys; k++)
        SIMD for (int i = 0; i < FN(PANEL); i++) {
            float e = FN(exp)(s[k * FN(PANEL) + i] - base[i]);
            s[k * FN(PANEL) + i] = e;
            added[i] += e;
        }
    SIMD for (int i = 0; i < FN(PANEL); i++) sum[i] = sum[i] * fade[i] + added[i];
}

/* q (B, H, TQ, D), k (B, G, TK, D), v (B, G, TK, DV), mask (B, H, TQ, TK) or NULL: of any strides,
 * but the last axis without gaps -> out (B, TQ, H, DV), logsumexp (B, H, TQ) if wanted.
 * ints: H, G, TQ, TK, D, DV; strides of batch, head and row of q, k, v and mask; causal, panels.
 * floats: scale. Items: (batch, head, panel of queries). */
KERNEL(attention) {
    const int64_t *n = a->n, heads = n[0], tq = n[2], tk = n[3], d = n[4], dv = n[5];
    int64_t group = heads / n[1], panels = n[19], wide = (dv + FN(PANEL) - 1) / FN(PANEL);
    int64_t padded = wide * FN(PANEL);
    float *q = attention_space, *s = q + HEAD * FN(PANEL), *o = s + KEYS * FN(PANEL);
    float *copy = o + HEAD * FN(PANEL);
    float sums[12 * FN(PANEL)] __attribute__((aligned(64))); /* TILE_ROWS is at most 12 */
    for (int64_t item = begin; item < end; item++) {
        int64_t first = item % panels * FN(PANEL), head = item / panels % heads;
        int64_t batch = item / panels / heads, rows = tq - first;
        rows = rows < FN(PANEL) ? rows : FN(PANEL);
        const float *from = (const float *)a->p[0] + batch * n[6] + head * n[7] + first * n[8];
        const float *k = (const float *)a->p[1] + batch * n[9] + head / group * n[10];
        const float *v = (const float *)a->p[2] + batch * n[12] + head / group * n[13];
        const float *mask = (const float *)a->p[3];
        if (mask) mask += batch * n[15] + head * n[16] + first * n[17];
        float top[FN(PANEL)], sum[FN(PANEL)], fade[FN(PANEL)];
        SIMD for (int i = 0; i < FN(PANEL); i++) top[i] = -INFINITY, sum[i] = 0.0f;
        for (int64_t c = 0; c < d; c++)
            for (int64_t i = 0; i < FN(PANEL); i++)
                q[c * FN(PANEL) + i] = i < rows ? from[i * n[8] + c] * a->f[0] : 0.0f;
        int64_t seen = n[18] && first + rows < tk ? first + rows : tk;
        for (int64_t k0 = 0; k0 < seen; k0 += KEYS) {
            int64_t keys = seen - k0 < KEYS ? seen - k0 : KEYS;
            int64_t tiles = (keys + FN(TILE_ROWS) - 1) / FN(TILE_ROWS);
            for (int64_t t = 0; t < tiles; t++) {
                int64_t at = keys * t / tiles, count = keys * (t + 1) / tiles - at;
                FN(SCORE_TILES)[count](k + (k0 + at) * n[11], n[11], q, d, s + at * FN(PANEL));
            }
            if (mask && n[17])
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t at = 0; at < keys; at++)
                        s[at * FN(PANEL) + i] += mask[i * n[17] + k0 + at];
            else if (mask)
                for (int64_t at = 0; at < keys; at++)
                    SIMD for (int i = 0; i < FN(PANEL); i++) s[at * FN(PANEL) + i] += mask[k0 + at];
            if (n[18])
                for (int64_t at = first < k0 ? 0 : first - k0; at < keys; at++)
                    for (int64_t i = 0; i < FN(PANEL) && first + i < k0 + at; i++)
                        s[at * FN(PANEL) + i] = -INFINITY;
            FN(exponentials)(s, keys, top, sum, fade);
            const float *values = v + k0 * n[14];
            int64_t stride = n[14];
            if (padded != dv) {
                FN(padded)(values, stride, keys, dv, copy, padded);
                values = copy, stride = padded;
            }
            tiles = (rows + FN(TILE_ROWS) - 1) / FN(TILE_ROWS);
            for (int64_t t = 0; t < tiles; t++) {
                int64_t at = rows * t / tiles, count = rows * (t + 1) / tiles - at;
                for (int64_t p = 0; p < wide; p++) {
                    FN(VALUE_TILES)[count](s + at, stride, values + p * FN(PANEL), keys, sums);
                    for (int64_t m = 0; m < count; m++) {
                        float *to = o + (at + m) * padded + p * FN(PANEL), by = fade[at + m];
                        const float *one = sums + m * FN(PANEL);
                        if (k0) SIMD for (int i = 0; i < FN(PANEL); i++) to[i] = to[i] * by + one[i];
                        else SIMD for (int i = 0; i < FN(PANEL); i++) to[i] = one[i];
                    }
                }
            }
        }
        for (int64_t i = 0; i < rows; i++) {
            float by = sum[i] == 0.0f ? 0.0f : 1.0f / sum[i];
            float *to = (float *)a->p[4] + ((batch * tq + first + i) * heads + head) * dv;
            if (seen) SIMD for (int64_t j = 0; j < dv; j++) to[j] = o[i * padded + j] * by;
            else for (int64_t j = 0; j < dv; j++) to[j] = 0.0f;
        }
        if (a->p[5])
            for (int64_t i = 0; i < rows; i++)
                ((float *)a->p[5])[(batch * heads + head) * tq + first + i]
                    = sum[i] == 0.0f ? 0.0f : top[i] + logf(sum[i]);
    }
}
