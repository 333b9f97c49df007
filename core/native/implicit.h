/* Convolution as an implicit matrix product on channels-last memory: a block of output pixels
 * is gathered (im2col of a slice of k = (kh, kw, c) that stays in cache), weights come packed in
 * panels of 2 vectors of output channels, a register tile of up to TILE_ROWS pixels by one panel
 * sums over the slice, and bias, addend and clamp are applied while the sums are in registers.
 * The gradient of the weights gathers the same slices and sums over pixels instead.
 */

enum {
    FN(TILE_ROWS) = REGISTERS == 32 ? 12 : 6, /* pixels: 24 or 12 registers of sums */
    FN(PANEL) = 2 * LANES,
};

/* weight (any strides) -> panels (groups, panels, k, PANEL), zeros past the last channel.
 * ints: output channels of a group, input channels of a group, kh * kw, strides of output
 * channel, input channel and tap, panels of a group, place of the first tap. Items: panels. */
KERNEL(conv_pack) {
    const int64_t *n = a->n, cg = n[1], taps = n[2];
    for (int64_t item = begin; item < end; item++) {
        int64_t first = item % n[6] * FN(PANEL);
        const float *w = (const float *)a->p[0] + n[7] + (item / n[6] * n[0] + first) * n[3];
        float *out = (float *)a->p[1] + item * taps * cg * FN(PANEL);
        if (n[3] == 1 && taps == 1 && first + FN(PANEL) <= n[0]) { /* rows as they are wanted */
            for (int64_t c = 0; c < cg; c++)
                memcpy(out + c * FN(PANEL), w + c * n[4], sizeof(float) * FN(PANEL));
            continue;
        }
        for (int64_t c0 = 0; c0 < cg; c0 += 16) /* few channels at a time stay in cache */
            for (int64_t o = 0; o < FN(PANEL); o++)
                for (int64_t c = c0; c < c0 + 16 && c < cg; c++)
                    for (int64_t tap = 0; tap < taps; tap++)
                        out[(tap * cg + c) * FN(PANEL) + o] = first + o < n[0]
                            ? w[o * n[3] + c * n[4] + tap * n[5]] : 0.0f;
    }
}

/* sums (rows, PANEL) of products: over k steps, number m of `rows` (`xm` apart) times a panel of
 * w; a step is `xk` in x and `wk` in w. */
INLINE void FN(tile)(int rows, const float *x, int64_t xm, int64_t xk, const float *w, int64_t wk,
                     int64_t length, float *sums) {
    VEC sum[FN(TILE_ROWS)][2] = {0};
    for (int64_t k = 0; k < length; k++, x += xk, w += wk) {
        VEC w0 = *(const VEC *)w, w1 = *(const VEC *)(w + LANES);
        UNROLL for (int m = 0; m < rows; m++) {
            VEC xm_k = x[m * xm] - (VEC){0};
            sum[m][0] += xm_k * w0;
            sum[m][1] += xm_k * w1;
        }
    }
    UNROLL for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) *(VEC *)(sums + (2 * m + v) * LANES) = sum[m][v];
}

/* Two functions for each number of rows, out of line so that nothing else takes registers:
 * gathered pixels by packed weights, and channels of a gradient by gathered pixels. */
#define TILE_OF(n) \
    TARGET static __attribute__((noinline)) void FN(tile_##n)( \
        const float *x, int64_t xk, const float *w, int64_t length, float *sums) { \
        FN(tile)(n, x, LINE, 1, w, FN(PANEL), length, sums); \
    } \
    TARGET static __attribute__((noinline)) void FN(grad_tile_##n)( \
        const float *x, int64_t xk, const float *w, int64_t length, float *sums) { \
        FN(tile)(n, x, 1, xk, w, LINE, length, sums); \
    }
TILE_OF(1) TILE_OF(2) TILE_OF(3) TILE_OF(4) TILE_OF(5) TILE_OF(6)
#if REGISTERS == 32
TILE_OF(7) TILE_OF(8) TILE_OF(9) TILE_OF(10) TILE_OF(11) TILE_OF(12)
#endif
#undef TILE_OF

typedef void (*FN(Tile))(const float *, int64_t, const float *, int64_t, float *);
#if REGISTERS == 32
#define TILES_OF(f) {0, f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12)}
#else
#define TILES_OF(f) {0, f(1), f(2), f(3), f(4), f(5), f(6)}
#endif
#define TILE_NAME(n) FN(tile_##n)
#define GRAD_TILE_NAME(n) FN(grad_tile_##n)
static const FN(Tile) FN(TILES)[] = TILES_OF(TILE_NAME);
static const FN(Tile) FN(GRAD_TILES)[] = TILES_OF(GRAD_TILE_NAME);
#undef TILE_NAME
#undef GRAD_TILE_NAME

typedef struct {
    const float *bias, *add; /* each may be NULL */
    int width, first, last;  /* channels; first and last slice of k */
    float low, high;
} FN(Edge);

/* Loops of their own for what there is, so that each is a vector loop. */
#define SUMS(value) SIMD for (int i = 0; i < width; i++) out[i] = value;
INLINE void FN(edge)(const FN(Edge) *e, int width, const float *sums, float *out) {
    const float *bias = e->bias, *add = e->add;
    float low = e->low, high = e->high;
    if (!e->first) SUMS(sums[i] + out[i])
    else if (bias) SUMS(sums[i] + bias[i])
    else SUMS(sums[i])
    if (!e->last) return;
    if (add) SUMS(out[i] + add[i])
    if (low > -INFINITY || high < INFINITY) SUMS(FN(clamped)(out[i], low, high))
}
#undef SUMS

/* Copies `length` inputs of output pixel `pixel`, from k = (ky, kx, c) on, to `out`. */
INLINE void FN(gather)(const Conv *v, const float *x, int64_t pixel, int64_t ky, int64_t kx,
                       int64_t c, int64_t length, float *out) {
    int64_t cg = v->c / v->groups, image = pixel / (v->oh * v->ow) * v->h * v->w;
    int64_t top = pixel / v->ow % v->oh * v->sh - v->top, left = pixel % v->ow * v->sw - v->left;
    while (length > 0) {
        int64_t row = top + ky * v->dh, col = left + kx * v->dw, taps = 1;
        int inside = row >= 0 && row < v->h && col >= 0 && col < v->w;
        if (inside && v->dw == 1 && v->groups == 1) /* taps of a line lie side by side */
            taps = v->kw - kx < v->w - col ? v->kw - kx : v->w - col;
        int64_t run = taps * cg - c < length ? taps * cg - c : length;
        const float *in = x + (image + row * v->w + col) * v->c + c;
        if (inside) for (int64_t i = 0; i < run; i++) out[i] = in[i];
        else for (int64_t i = 0; i < run; i++) out[i] = 0.0f;
        out += run, length -= run, c = 0, kx += taps;
        if (kx == v->kw) kx = 0, ky++;
    }
}

/* x, packed weight, bias, addend (shape of the output) -> y. ints: Conv, then pixel blocks of
 * the whole and panel ranges of a group; floats: clamp. Items: (group, range, pixel block), so
 * that the weights of a range can stay in cache from block to block. */
KERNEL(conv) {
    const Conv *v = (const Conv *)a->n;
    int64_t blocks = a->n[16], ranges = a->n[17], og = v->o / v->groups, cg = v->c / v->groups;
    int64_t panels = (og + FN(PANEL) - 1) / FN(PANEL), length = v->kh * v->kw * cg;
    int64_t pixels = v->n * v->oh * v->ow, slices = (length + SLICE - 1) / SLICE;
    float sums[FN(TILE_ROWS) * FN(PANEL)] __attribute__((aligned(64)));
    FN(Edge) e = {.low = a->f[0], .high = a->f[1]};
    for (int64_t item = begin; item < end; item++) {
        int64_t group = item / (blocks * ranges), range = item / blocks % ranges;
        int64_t block = item % blocks, p0 = pixels * block / blocks;
        int64_t count = pixels * (block + 1) / blocks - p0;
        int64_t tiles = (count + FN(TILE_ROWS) - 1) / FN(TILE_ROWS);
        for (int64_t s = 0; s < slices; s++) {
            int64_t k0 = length * s / slices, k1 = length * (s + 1) / slices;
            e.first = s == 0, e.last = s == slices - 1;
            for (int64_t i = 0; i < count; i++)
                FN(gather)(v, (const float *)a->p[0] + group * cg, p0 + i, k0 / cg / v->kw,
                           k0 / cg % v->kw, k0 % cg, k1 - k0, columns + i * LINE);
            for (int64_t p = panels * range / ranges; p < panels * (range + 1) / ranges; p++) {
                int64_t o = p * FN(PANEL), at = p0 * v->o + group * og + o;
                const float *w = (const float *)a->p[1]
                    + ((group * panels + p) * length + k0) * FN(PANEL);
                e.width = (int)(og - o < FN(PANEL) ? og - o : FN(PANEL));
                e.bias = a->p[2] ? (const float *)a->p[2] + group * og + o : 0;
                for (int64_t t = 0; t < tiles; t++) {
                    int64_t i = count * t / tiles, rows = count * (t + 1) / tiles - i;
                    FN(TILES)[rows](columns + i * LINE, 1, w, k1 - k0, sums);
                    for (int64_t m = 0; m < rows; m++) {
                        int64_t to = at + (i + m) * v->o;
                        e.add = a->p[3] ? (const float *)a->p[3] + to : 0;
                        float *y = (float *)a->p[4] + to;
                        if (e.width == FN(PANEL)) FN(edge)(&e, FN(PANEL), sums + m * FN(PANEL), y);
                        else FN(edge)(&e, e.width, sums + m * FN(PANEL), y);
                    }
                }
            }
        }
    }
}

/* g (shape of the output), x -> partial sums of the gradient of the weight (ranges, o, k). ints:
 * Conv, then ranges of pixels and slices of k. Items: (range, group, slice). */
KERNEL(conv_weight_grad) {
    const Conv *v = (const Conv *)a->n;
    int64_t ranges = a->n[16], slices = a->n[17], og = v->o / v->groups, cg = v->c / v->groups;
    int64_t length = v->kh * v->kw * cg, panels = (length + FN(PANEL) - 1) / FN(PANEL);
    int64_t pixels = v->n * v->oh * v->ow, tiles = (og + FN(TILE_ROWS) - 1) / FN(TILE_ROWS);
    float sums[FN(TILE_ROWS) * FN(PANEL)] __attribute__((aligned(64)));
    for (int64_t item = begin; item < end; item++) {
        int64_t slice = item % slices, group = item / slices % v->groups;
        int64_t range = item / (slices * v->groups);
        int64_t k0 = panels * slice / slices * FN(PANEL);
        int64_t k1 = panels * (slice + 1) / slices * FN(PANEL), padded = k1 - k0;
        int64_t p0 = pixels * range / ranges, last = pixels * (range + 1) / ranges;
        float *out = (float *)a->p[2] + (range * v->o + group * og) * length;
        k1 = k1 < length ? k1 : length;
        for (int first = 1; p0 < last; p0 += PIXELS, first = 0) {
            int64_t count = last - p0 < PIXELS ? last - p0 : PIXELS;
            for (int64_t i = 0; i < count; i++) {
                float *line = columns + i * LINE;
                FN(gather)(v, (const float *)a->p[1] + group * cg, p0 + i, k0 / cg / v->kw,
                           k0 / cg % v->kw, k0 % cg, k1 - k0, line);
                for (int64_t k = k1 - k0; k < padded; k++) line[k] = 0.0f;
            }
            for (int64_t k = k0; k < k1; k += FN(PANEL)) {
                int width = (int)(k1 - k < FN(PANEL) ? k1 - k : FN(PANEL));
                for (int64_t t = 0; t < tiles; t++) {
                    int64_t o = og * t / tiles, rows = og * (t + 1) / tiles - o;
                    const float *g = (const float *)a->p[0] + p0 * v->o + group * og + o;
                    FN(GRAD_TILES)[rows](g, v->o, columns + k - k0, count, sums);
                    for (int64_t m = 0; m < rows; m++) {
                        float *to = out + (o + m) * length + k, *sum = sums + m * FN(PANEL);
                        if (first) for (int i = 0; i < width; i++) to[i] = sum[i];
                        else SIMD for (int i = 0; i < width; i++) to[i] += sum[i];
                    }
                }
            }
        }
    }
}
