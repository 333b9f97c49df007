/* Convolution by 3 x 3, stride 1, by Winograd: F(m x m, 3 x 3), m = 4 or 2, on channels-last
 * memory. A tile of m x m outputs reads SIDE x SIDE inputs, SIDE = m + 2. Both are taken for
 * polynomials whose product is found from its values at SIDE points along each axis: the inputs'
 * values, times those of the weights, which come ready and packed, summed over the channels: one
 * small matrix product for each of SIDE * SIDE spots. That is 4 (2.25) times fewer products.
 *
 * The points are 0, a, -a, b, -b and infinity with a = sqrt(1/2), b = sqrt(2), or 0, 1, -1 and
 * infinity: with 1 and 2 for a and b the error would be twice as large. A block of tiles goes
 * through all three stages in memory of the thread, the size of a cache.
 */

/* Values at the points, in the place of SIDE numbers that lie `by` apart. */
INLINE void FN(to_points)(int m, VEC *d, int by) {
    const float a = 0.70710678118654752f, b = 1.41421356237309505f;
    VEC d0 = d[0], d1 = d[by], d2 = d[2 * by], d3 = d[3 * by];
    if (m == 2) {
        d[0] = d0 - d2, d[by] = d1 + d2, d[2 * by] = d2 - d1, d[3 * by] = d3 - d1;
        return;
    }
    VEC d4 = d[4 * by], d5 = d[5 * by];
    VEC even_a = d4 - 2.0f * d2, odd_a = a * (d3 - 2.0f * d1);
    VEC even_b = d4 - 0.5f * d2, odd_b = b * (d3 - 0.5f * d1);
    d[0] = d0 - 2.5f * d2 + d4, d[5 * by] = d1 - 2.5f * d3 + d5;
    d[by] = even_a + odd_a, d[2 * by] = even_a - odd_a;
    d[3 * by] = even_b + odd_b, d[4 * by] = even_b - odd_b;
}

/* m results, `by` apart, of SIDE values at the points, `from` apart. */
INLINE void FN(from_points)(int m, const VEC *p, int from, VEC *y, int by) {
    const float a = 0.70710678118654752f, b = 1.41421356237309505f;
    VEC sum_a = p[from] + p[2 * from], less_a = p[from] - p[2 * from];
    if (m == 2) {
        y[0] = p[0] + sum_a, y[by] = less_a + p[3 * from];
        return;
    }
    VEC sum_b = p[3 * from] + p[4 * from], less_b = p[3 * from] - p[4 * from];
    y[0] = p[0] + sum_a + sum_b, y[by] = a * less_a + b * less_b;
    y[2 * by] = 0.5f * sum_a + 2.0f * sum_b;
    y[3 * by] = 0.5f * a * less_a + 2.0f * b * less_b + p[5 * from];
}

/* As `tile` of implicit.h, where the numbers of a tile lie in pieces of PIECE channels, TILE_ROWS
 * of them side by side. */
#define TILE_OF(n) \
    TARGET static __attribute__((noinline)) void FN(winograd_tile_##n)( \
        const float *x, int64_t unused, const float *w, int64_t length, float *sums) { \
        VEC sum[n][2] = {0}; \
        for (; length > 0; length -= PIECE, x += FN(TILE_ROWS) * PIECE) { \
            int64_t steps = length < PIECE ? length : PIECE; \
            for (int64_t k = 0; k < steps; k++, w += FN(PANEL)) { \
                VEC w0 = *(const VEC *)w, w1 = *(const VEC *)(w + LANES); \
                UNROLL for (int m = 0; m < n; m++) { \
                    VEC x_k = x[m * PIECE + k] - (VEC){0}; \
                    sum[m][0] += x_k * w0; \
                    sum[m][1] += x_k * w1; \
                } \
            } \
        } \
        UNROLL for (int m = 0; m < n; m++) \
            for (int v = 0; v < 2; v++) *(VEC *)(sums + (2 * m + v) * LANES) = sum[m][v]; \
    }
#define TILE_NAME(n) FN(winograd_tile_##n)
TILE_OF(1) TILE_OF(2) TILE_OF(3) TILE_OF(4) TILE_OF(5) TILE_OF(6)
#if REGISTERS == 32
TILE_OF(7) TILE_OF(8) TILE_OF(9) TILE_OF(10) TILE_OF(11) TILE_OF(12)
static const FN(Tile) FN(WINOGRAD_TILES)[] = {
    0, TILE_NAME(1), TILE_NAME(2), TILE_NAME(3), TILE_NAME(4), TILE_NAME(5), TILE_NAME(6),
    TILE_NAME(7), TILE_NAME(8), TILE_NAME(9), TILE_NAME(10), TILE_NAME(11), TILE_NAME(12)};
#else
static const FN(Tile) FN(WINOGRAD_TILES)[] = {
    0, TILE_NAME(1), TILE_NAME(2), TILE_NAME(3), TILE_NAME(4), TILE_NAME(5), TILE_NAME(6)};
#endif
#undef TILE_OF
#undef TILE_NAME

/* Inputs of the tile whose first input is (top, left) of the image x, `lanes` channels, to their
 * values at the spots, `apart` from one another. */
INLINE void FN(spots)(int m, const Conv *v, const float *x, int64_t top, int64_t left, int lanes,
                      float *out, int64_t apart) {
    int side = m + 2;
    VEC d[36];
    if (lanes == LANES && top >= 0 && left >= 0 && top + side <= v->h && left + side <= v->w) {
        UNROLL for (int i = 0; i < side; i++)
            UNROLL for (int j = 0; j < side; j++)
                d[i * side + j] = *(const VEC *)(x + ((top + i) * v->w + left + j) * v->c);
    } else {
        for (int i = 0; i < side; i++)
            for (int j = 0; j < side; j++) {
                int64_t row = top + i, col = left + j;
                d[i * side + j] = (VEC){0};
                if (row >= 0 && row < v->h && col >= 0 && col < v->w)
                    d[i * side + j] = FN(load)(x + (row * v->w + col) * v->c, lanes);
            }
    }
    UNROLL for (int j = 0; j < side; j++) FN(to_points)(m, d + j, side);
    UNROLL for (int i = 0; i < side; i++) {
        FN(to_points)(m, d + i * side, 1);
        UNROLL for (int j = 0; j < side; j++) *(VEC *)(out + (i * side + j) * apart) = d[i * side + j];
    }
}

/* x, weight (spots, panels, c, PANEL), bias, addend (shape of the output) -> y. ints: Conv, then
 * blocks of tiles of the whole and ranges of panels; floats: clamp. Items: (block, range). */
INLINE void FN(winograd)(const Args *a, int64_t begin, int64_t end, int m) {
    const Conv *v = (const Conv *)a->n;
    int side = m + 2, spots = side * side, bounded = a->f[0] > -INFINITY || a->f[1] < INFINITY;
    int64_t blocks = a->n[16], ranges = a->n[17], across = (v->ow + m - 1) / m;
    int64_t tiles = (v->oh + m - 1) / m * across * v->n, in_image = (v->oh + m - 1) / m * across;
    int64_t panels = (v->o + FN(PANEL) - 1) / FN(PANEL), pieces = (v->c + PIECE - 1) / PIECE;
    for (int64_t item = begin; item < end; item++) {
        int64_t block = item / ranges, first = tiles * block / blocks;
        int64_t count = tiles * (block + 1) / blocks - first;
        int64_t p0 = panels * (item % ranges) / ranges, p1 = panels * (item % ranges + 1) / ranges;
        int64_t groups = (count + FN(TILE_ROWS) - 1) / FN(TILE_ROWS), rows;
        /* 16 more: powers of 2 would crowd few cache sets */
        int64_t x_apart = groups * FN(TILE_ROWS) * pieces * PIECE + 16;
        int64_t y_apart = (p1 - p0) * groups * FN(TILE_ROWS) * FN(PANEL) + 16;
        float *xs = winograd_space, *ys = winograd_space + spots * x_apart;
        for (int64_t g = 0; g < groups; g++)
            for (int64_t i = count * g / groups, r = 0; i < count * (g + 1) / groups; i++, r++) {
                int64_t tile = first + i, image = tile / in_image, at = tile % in_image;
                const float *x = (const float *)a->p[0] + image * v->h * v->w * v->c;
                int64_t top = at / across * m - v->top, left = at % across * m - v->left;
                for (int64_t c = 0; c < v->c; c += LANES) {
                    float *out = xs + ((g * pieces + c / PIECE) * FN(TILE_ROWS) + r) * PIECE
                        + c % PIECE;
                    int lanes = (int)(v->c - c < LANES ? v->c - c : LANES);
                    if (lanes == LANES) FN(spots)(m, v, x + c, top, left, LANES, out, x_apart);
                    else FN(spots)(m, v, x + c, top, left, lanes, out, x_apart);
                }
            }
        for (int spot = 0; spot < spots; spot++)
            for (int64_t p = p0; p < p1; p++)
                for (int64_t g = 0; g < groups; g++) {
                    rows = count * (g + 1) / groups - count * g / groups;
                    FN(WINOGRAD_TILES)[rows](
                        xs + spot * x_apart + g * pieces * FN(TILE_ROWS) * PIECE, 0,
                        (const float *)a->p[1] + (spot * panels + p) * v->c * FN(PANEL), v->c,
                        ys + spot * y_apart
                            + ((p - p0) * groups + g) * FN(TILE_ROWS) * FN(PANEL));
                }
        for (int64_t g = 0; g < groups; g++)
            for (int64_t i = count * g / groups, r = 0; i < count * (g + 1) / groups; i++, r++) {
                int64_t tile = first + i, image = tile / in_image, at = tile % in_image;
                int64_t top = at / across * m, left = at % across * m;
                int64_t pixel = (image * v->oh + top) * v->ow + left;
                for (int64_t o = p0 * FN(PANEL); o < p1 * FN(PANEL) && o < v->o; o += LANES) {
                    const float *in = ys + ((o / FN(PANEL) - p0) * groups + g) * FN(TILE_ROWS)
                        * FN(PANEL) + r * FN(PANEL) + o % FN(PANEL);
                    int lanes = (int)(v->o - o < LANES ? v->o - o : LANES);
                    VEC lines[24], column[6], y[4], bias = {0};
                    if (a->p[2]) bias = FN(load)((const float *)a->p[2] + o, lanes);
                    UNROLL for (int j = 0; j < side; j++) {
                        UNROLL for (int k = 0; k < side; k++)
                            column[k] = *(const VEC *)(in + (k * side + j) * y_apart);
                        FN(from_points)(m, column, 1, lines + j, side);
                    }
                    UNROLL for (int k = 0; k < m; k++) {
                        if (top + k >= v->oh) break;
                        FN(from_points)(m, lines + k * side, 1, y, 1);
                        UNROLL for (int j = 0; j < m; j++) {
                            if (left + j >= v->ow) break;
                            int64_t to = (pixel + k * v->ow + j) * v->o + o;
                            VEC sum = y[j] + bias;
                            if (a->p[3]) sum += FN(load)((const float *)a->p[3] + to, lanes);
                            if (bounded) sum = FN(clamp)(sum, a->f);
                            FN(store)((float *)a->p[4] + to, sum, lanes);
                        }
                    }
                }
            }
    }
}

KERNEL(winograd4) { FN(winograd)(a, begin, end, 4); }
KERNEL(winograd2) { FN(winograd)(a, begin, end, 2); }
