/* Depthwise convolution on channels-last memory: one filter (kh, kw) for each channel.
 *
 * The three passes are one walk over rows of pixels. A row has row taps (an input row and a row
 * of weights) and column taps: tap k of pixel j meets input pixel j * step + off[k]. The
 * gradient of the input with stride s has s phases of pixels, each with taps of its own and
 * step 1. Where taps are neighbours (no dilation), tiles of TILE pixels load each input vector
 * once for all their taps; pixels near the borders are visited one by one.
 */

enum { FN(WIDE) = 8, FN(NARROW) = 4 }; /* pixels of a tile */

typedef struct {
    int rows, cols;
    int64_t c, width, step, count; /* channels, input width, input step, pixels */
    float *pixels;                 /* written, or the gradient that is read */
    int64_t stride;                /* floats from pixel to pixel */
    const float *bias, *clamp;     /* either may be NULL */
    const float *in[MAX_TAPS];
    float *weight[MAX_TAPS]; /* read, or the gradient that is added to */
    int64_t off[MAX_TAPS], at[MAX_TAPS]; /* ascending input offset in pixels; weight in floats */
} FN(Taps);

/* Visits pixels from j on; `seen` of them were visited before by an overlapping tile. */
typedef void (*FN(Visit))(const FN(Taps) *t, int64_t j, int64_t seen);

/* Channels [c, c + lanes): the last vector overlaps the one before, `old` lanes of it. */
#define CHANNELS(t) \
    for (int64_t from = 0, lanes = t->c < LANES ? t->c : LANES, old, c; from < t->c \
         && (c = from + lanes <= t->c ? from : t->c - lanes, old = from - c, 1); from += LANES)

TARGET static void FN(forward_one)(const FN(Taps) *t, int64_t j, int64_t seen) {
    (void)seen;
    CHANNELS(t) {
        (void)old;
        VEC sum = t->bias ? FN(load)(t->bias + c, (int)lanes) : (VEC){0};
        for (int k = 0; k < t->cols; k++) {
            int64_t x = j * t->step + t->off[k];
            if (x < 0 || x >= t->width) continue;
            for (int r = 0; r < t->rows; r++)
                sum += FN(load)(t->weight[r] + t->at[k] + c, (int)lanes)
                    * FN(load)(t->in[r] + x * t->c + c, (int)lanes);
        }
        if (t->clamp) sum = FN(clamp)(sum, t->clamp);
        FN(store)(t->pixels + j * t->stride + c, sum, (int)lanes);
    }
}

TARGET static void FN(weight_one)(const FN(Taps) *t, int64_t j, int64_t seen) {
    (void)seen;
    for (int r = 0; r < t->rows; r++)
        for (int k = 0; k < t->cols; k++) {
            int64_t x = j * t->step + t->off[k];
            if (x < 0 || x >= t->width) continue;
            const float *g = t->pixels + j * t->stride, *in = t->in[r] + x * t->c;
            float *w = t->weight[r] + t->at[k];
            SIMD for (int64_t c = 0; c < t->c; c++) w[c] += g[c] * in[c];
        }
}

/* The last row of taps is new to the cache, and strides defeat the hardware's own prefetching:
   asking for the next tile makes these loops up to three times faster. */
#define AHEAD(address) __builtin_prefetch(address)

/* In both: input vector i is tap k of pixel m of the tile where i = m * step + k. */
#define USES(i, k) (i >= k && (i - k) % step == 0 && (i - k) / step < many)

INLINE void FN(forward_tile)(const FN(Taps) *t, int64_t j, int many, int cols, int step) {
    CHANNELS(t) {
        (void)old;
        VEC sum[FN(WIDE)], w[8];
        UNROLL for (int m = 0; m < many; m++)
            sum[m] = t->bias ? *(const VEC *)(t->bias + c) : (VEC){0};
        for (int r = 0; r < t->rows; r++) {
            const float *in = t->in[r] + (j * step + t->off[0]) * t->c + c;
            UNROLL for (int k = 0; k < cols; k++) w[k] = *(VEC *)(t->weight[r] + t->at[k] + c);
            UNROLL for (int i = 0; i < (many - 1) * step + cols; i++) {
                VEC x = *(const VEC *)(in + i * t->c);
                if (r == t->rows - 1) AHEAD(in + (many * step + i) * t->c);
                UNROLL for (int k = 0; k < cols; k++)
                    if (USES(i, k)) sum[(i - k) / step] += w[k] * x;
            }
        }
        UNROLL for (int m = 0; m < many; m++) {
            if (t->clamp) sum[m] = FN(clamp)(sum[m], t->clamp);
            *(VEC *)(t->pixels + (j + m) * t->stride + c) = sum[m];
        }
    }
}

INLINE void FN(weight_tile)(const FN(Taps) *t, int64_t j, int64_t seen, int many, int cols,
                            int step) {
    CHANNELS(t) {
        VEC g[FN(WIDE)], w[8];
        UNROLL for (int m = 0; m < many; m++) {
            g[m] = *(VEC *)(t->pixels + (j + m) * t->stride + c);
            AHEAD(t->pixels + (j + many + m) * t->stride + c);
            if (m < seen) g[m] = (VEC){0};
            for (int64_t i = 0; i < old; i++) g[m][i] = 0.0f;
        }
        for (int r = 0; r < t->rows; r++) {
            const float *in = t->in[r] + (j * step + t->off[0]) * t->c + c;
            UNROLL for (int k = 0; k < cols; k++) w[k] = *(VEC *)(t->weight[r] + t->at[k] + c);
            UNROLL for (int i = 0; i < (many - 1) * step + cols; i++) {
                VEC x = *(const VEC *)(in + i * t->c);
                if (r == t->rows - 1) AHEAD(in + (many * step + i) * t->c);
                UNROLL for (int k = 0; k < cols; k++)
                    if (USES(i, k)) w[k] += g[(i - k) / step] * x;
            }
            UNROLL for (int k = 0; k < cols; k++) *(VEC *)(t->weight[r] + t->at[k] + c) = w[k];
        }
    }
}
#undef USES
#undef AHEAD

/* Tiles of these numbers of columns and steps, each out of line to have all registers. */
#define SHAPES(X, many) X(many, 1, 1) X(many, 2, 1) X(many, 3, 1) X(many, 4, 1) X(many, 5, 1) \
    X(many, 7, 1) X(many, 3, 2) X(many, 5, 2) X(many, 7, 2)
#define BUILD(many, n, s) \
    TARGET static void FN(forward_##many##_##n##_##s)(const FN(Taps) *t, int64_t j, int64_t seen) { \
        (void)seen; \
        FN(forward_tile)(t, j, FN(many), n, s); \
    } \
    TARGET static void FN(weight_##many##_##n##_##s)(const FN(Taps) *t, int64_t j, int64_t seen) { \
        FN(weight_tile)(t, j, seen, FN(many), n, s); \
    }
SHAPES(BUILD, WIDE) SHAPES(BUILD, NARROW)
#undef BUILD

/* The visitor for tiles of `many` pixels, or NULL. */
TARGET static FN(Visit) FN(tile_for)(const FN(Taps) *t, int many, int weight) {
    for (int k = 1; k < t->cols; k++)
        if (t->off[k] != t->off[0] + k) return 0;
#define PICK(wide, n, s) if (many == FN(wide) && t->cols == n && t->step == s) \
        return weight ? FN(weight_##wide##_##n##_##s) : FN(forward_##wide##_##n##_##s);
    SHAPES(PICK, WIDE) SHAPES(PICK, NARROW)
#undef PICK
    return 0;
}
#undef SHAPES

TARGET static void FN(walk)(const FN(Taps) *t, int weight) {
    int64_t low = 0, high = t->count; /* pixels whose taps are all inside */
    for (int k = 0; k < t->cols; k++) {
        while (low < high && low * t->step + t->off[k] < 0) low++;
        while (high > low && (high - 1) * t->step + t->off[k] >= t->width) high--;
    }
    int many = high - low >= FN(WIDE) ? FN(WIDE) : FN(NARROW);
    FN(Visit) one = weight ? FN(weight_one) : FN(forward_one), tile = 0;
    if (t->c >= LANES && high - low >= many) tile = FN(tile_for)(t, many, weight);
    for (int64_t j = 0; j < t->count;)
        if (tile && j >= low && j < high) {
            int64_t start = j + many <= high ? j : high - many;
            tile(t, start, j - start);
            j = start + many;
        } else
            one(t, j++, 0);
}
#undef CHANNELS

/* The column taps of an output row, and the row taps of output row y of the image at x. */
INLINE void FN(set_cols)(FN(Taps) *t, const Conv *v) {
    t->cols = (int)v->kw, t->c = v->c, t->width = v->w, t->step = v->sw, t->count = v->ow;
    t->stride = v->c;
    for (int k = 0; k < t->cols; k++) t->off[k] = k * v->dw - v->left, t->at[k] = k * v->c;
}

INLINE void FN(set_rows)(FN(Taps) *t, const Conv *v, const float *x, int64_t row, float *weight) {
    t->rows = 0;
    for (int64_t i = 0; i < v->kh; i++) {
        int64_t y = row % v->oh * v->sh - v->top + i * v->dh;
        if (y < 0 || y >= v->h) continue;
        t->in[t->rows] = x + (row / v->oh * v->h + y) * v->w * v->c;
        t->weight[t->rows++] = weight + i * v->kw * v->c;
    }
}

/* x, weight (kh, kw, c), bias -> y clamped to floats [low, high]. Items: output rows (n, oh). */
KERNEL(depthwise) {
    const Conv *v = (const Conv *)a->n;
    FN(Taps) t;
    FN(set_cols)(&t, v);
    t.bias = a->p[2];
    t.clamp = a->f[0] > -INFINITY || a->f[1] < INFINITY ? a->f : 0;
    for (int64_t row = begin; row < end; row++) {
        FN(set_rows)(&t, v, a->p[0], row, a->p[1]);
        t.pixels = (float *)a->p[3] + row * v->ow * v->c;
        FN(walk)(&t, 0);
    }
}

/* g, x -> partial dw (blocks, kh, kw, c), zero before. Items: output rows (n, oh). */
KERNEL(depthwise_weight_grad) {
    const Conv *v = (const Conv *)a->n;
    FN(Taps) t;
    FN(set_cols)(&t, v);
    for (int64_t row = begin; row < end; row++) {
        float *out = (float *)a->p[2] + begin / a->grain * v->kh * v->kw * v->c;
        FN(set_rows)(&t, v, a->p[1], row, out);
        t.pixels = (float *)a->p[0] + row * v->ow * v->c;
        FN(walk)(&t, 1);
    }
}

/* g, weight -> dx. Items: input rows (n, h). */
KERNEL(depthwise_input_grad) {
    const Conv *v = (const Conv *)a->n;
    FN(Taps) t = {.c = v->c, .width = v->ow, .step = 1, .stride = v->sw * v->c};
    for (int64_t row = begin; row < end; row++) {
        t.rows = 0;
        for (int64_t i = 0; i < v->kh; i++) {
            int64_t y = row % v->h + v->top - i * v->dh;
            if (y < 0 || y % v->sh || y / v->sh >= v->oh) continue;
            t.in[t.rows] = (float *)a->p[0] + (row / v->h * v->oh + y / v->sh) * v->ow * v->c;
            t.weight[t.rows++] = (float *)a->p[1] + i * v->kw * v->c;
        }
        for (int64_t phase = 0; phase < v->sw && phase < v->w; phase++) {
            t.cols = 0;
            t.count = (v->w - phase + v->sw - 1) / v->sw;
            t.pixels = (float *)a->p[2] + (row * v->w + phase) * v->c;
            for (int64_t k = v->kw - 1; k >= 0; k--) { /* backwards, so that off ascends */
                int64_t x = phase + v->left - k * v->dw;
                if (x % v->sw == 0) t.off[t.cols] = x / v->sw, t.at[t.cols++] = k * v->c;
            }
            FN(walk)(&t, 0);
        }
    }
}
