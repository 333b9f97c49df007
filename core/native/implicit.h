/* Convolution as an implicit matrix product on channels-last memory: a block of output pixels
 * is gathered (im2col of a slice of k = (kh, kw, c) that stays in cache), weights come packed in
 * panels of 2 vectors of output channels, a register tile of up to TILE_ROWS pixels by one panel
 * sums over the slice, and bias, addend and clamp are applied while the sums are in registers.
 */

enum {
    FN(TILE_ROWS) = REGISTERS == 32 ? 12 : 6, /* pixels: 24 or 12 registers of sums */
    FN(PANEL) = 2 * LANES,
    FN(SLICE) = 256,
    FN(LINE) = FN(SLICE) + 16, /* not a power of 2, which would crowd few cache sets */
};

/* weight (any strides) -> panels (groups, panels, k, PANEL), zeros past the last channel.
 * ints: output channels of a group, input channels of a group, kh * kw, strides of output
 * channel, input channel and tap, panels of a group. Items: panels. */
KERNEL(conv_pack) {
    const int64_t *n = a->n, length = n[1] * n[2];
    for (int64_t item = begin; item < end; item++) {
        int64_t first = item % n[6] * FN(PANEL);
        const float *w = (const float *)a->p[0] + (item / n[6] * n[0] + first) * n[3];
        float *out = (float *)a->p[1] + item * length * FN(PANEL);
        for (int64_t k0 = 0; k0 < length; k0 += 16)
            for (int64_t o = 0; o < FN(PANEL); o++)
                for (int64_t k = k0; k < k0 + 16 && k < length; k++)
                    out[k * FN(PANEL) + o] = first + o < n[0]
                        ? w[o * n[3] + k % n[1] * n[4] + k / n[1] * n[5]] : 0.0f;
    }
}

typedef struct {
    const float *bias, *add, *clamp; /* each may be NULL */
    int64_t stride;                  /* floats between output pixels */
    int lanes[2], first, last;       /* channels in each vector; first and last slice of k */
} FN(Edge);

INLINE void FN(tile)(int rows, const float *x, const float *w, int64_t length, float *out,
                     const FN(Edge) *e) {
    VEC sum[FN(TILE_ROWS)][2];
    UNROLL for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            const float *from = e->first ? e->bias : out + m * e->stride;
            sum[m][v] = from ? FN(load)(from + v * LANES, e->lanes[v]) : (VEC){0};
        }
    for (int64_t k = 0; k < length; k++, x++, w += FN(PANEL)) {
        VEC w0 = *(const VEC *)w, w1 = *(const VEC *)(w + LANES);
        UNROLL for (int m = 0; m < rows; m++) {
            VEC xm = x[m * FN(LINE)] - (VEC){0};
            sum[m][0] += xm * w0;
            sum[m][1] += xm * w1;
        }
    }
    UNROLL for (int m = 0; m < rows; m++)
        for (int v = 0; v < 2; v++) {
            VEC y = sum[m][v];
            int64_t at = m * e->stride + v * LANES;
            if (e->last && e->add) y += FN(load)(e->add + at, e->lanes[v]);
            if (e->last && e->clamp) y = FN(clamp)(y, e->clamp);
            FN(store)(out + at, y, e->lanes[v]);
        }
}

/* Copies k = [begin, end) of output pixel `pixel` of a group to `out`. */
INLINE void FN(gather)(const Conv *v, const float *x, int64_t pixel, int64_t begin, int64_t end,
                       float *out) {
    int64_t cg = v->c / v->groups, image = pixel / (v->oh * v->ow) * v->h * v->w;
    int64_t top = pixel / v->ow % v->oh * v->sh - v->top, left = pixel % v->ow * v->sw - v->left;
    for (int64_t k = begin; k < end;) {
        int64_t tap = k / cg, c = k % cg, stop = (tap + 1) * cg;
        int64_t row = top + tap / v->kw * v->dh, col = left + tap % v->kw * v->dw;
        int inside = row >= 0 && row < v->h && col >= 0 && col < v->w;
        if (inside && v->dw == 1 && v->groups == 1) { /* taps of a line lie side by side */
            int64_t taps = v->kw - tap % v->kw;
            stop += ((taps < v->w - col ? taps : v->w - col) - 1) * cg;
        }
        const float *in = x + (image + row * v->w + col) * v->c + c;
        stop = stop < end ? stop : end;
        if (inside) for (; k < stop; k++) *out++ = *in++;
        else for (; k < stop; k++) *out++ = 0.0f;
    }
}

/* x, packed weight, bias, addend (shape of the output) -> y. ints: Conv, then pixel blocks of
 * the whole and panel ranges of a group; floats: clamp. Items: (group, pixel block, range). */
KERNEL(conv) {
    const Conv *v = (const Conv *)a->n;
    int64_t blocks = a->n[16], ranges = a->n[17], og = v->o / v->groups, cg = v->c / v->groups;
    int64_t panels = (og + FN(PANEL) - 1) / FN(PANEL), length = v->kh * v->kw * cg;
    int64_t pixels = v->n * v->oh * v->ow, slices = (length + FN(SLICE) - 1) / FN(SLICE);
    float columns[96 * FN(LINE)] __attribute__((aligned(64)));
    FN(Edge) e = {.stride = v->o,
                  .clamp = a->f[0] > -INFINITY || a->f[1] < INFINITY ? a->f : 0};
    for (int64_t item = begin; item < end; item++) {
        int64_t group = item / (blocks * ranges), block = item / ranges % blocks;
        int64_t range = item % ranges, p0 = pixels * block / blocks;
        int64_t count = pixels * (block + 1) / blocks - p0;
        int64_t tiles = (count + FN(TILE_ROWS) - 1) / FN(TILE_ROWS);
        for (int64_t s = 0; s < slices; s++) {
            int64_t k0 = length * s / slices, k1 = length * (s + 1) / slices;
            e.first = s == 0, e.last = s == slices - 1;
            for (int64_t i = 0; i < count; i++)
                FN(gather)(v, (const float *)a->p[0] + group * cg, p0 + i, k0, k1,
                           columns + i * FN(LINE));
            for (int64_t p = panels * range / ranges; p < panels * (range + 1) / ranges; p++) {
                int64_t o = p * FN(PANEL), left = og - o;
                const float *w = (const float *)a->p[1]
                    + ((group * panels + p) * length + k0) * FN(PANEL);
                e.lanes[0] = left < LANES ? (int)left : LANES;
                e.lanes[1] = left < FN(PANEL) ? (int)left - e.lanes[0] : LANES;
                e.bias = a->p[2] ? (const float *)a->p[2] + group * og + o : 0;
                for (int64_t t = 0; t < tiles; t++) {
                    int64_t i = count * t / tiles, rows = count * (t + 1) / tiles - i;
                    int64_t at = (p0 + i) * v->o + group * og + o;
                    const float *x = columns + i * FN(LINE);
                    float *y = (float *)a->p[4] + at;
                    e.add = a->p[3] ? (const float *)a->p[3] + at : 0;
#define ROWS(n) case n: FN(tile)(n, x, w, k1 - k0, y, &e); break;
                    switch (rows) {
                        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#if REGISTERS == 32
                        ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#endif
                    }
#undef ROWS
                }
            }
        }
    }
}
