/* Largest values of windows on channels-last memory, and their gradients' way back.
 * ints: Conv; windows may reach past the image, what is outside counts for nothing. */

/* Calls `visit` for the taps of output pixel (y, x) that lie inside, `at` being their pixel. */
#define TAPS(v, y, x, visit) \
    for (int64_t i = 0; i < v->kh; i++) { \
        int64_t iy = y * v->sh - v->top + i * v->dh; \
        if (iy < 0 || iy >= v->h) continue; \
        for (int64_t j = 0; j < v->kw; j++) { \
            int64_t ix = x * v->sw - v->left + j * v->dw; \
            if (ix < 0 || ix >= v->w) continue; \
            int64_t at = iy * v->w + ix; \
            visit \
        } \
    }

/* x -> y. Items: output rows (n, oh). NaN wins, as in NumPy. */
KERNEL(max_pool) {
    const Conv *v = (const Conv *)a->n;
    for (int64_t row = begin; row < end; row++) {
        const float *image = (const float *)a->p[0] + row / v->oh * v->h * v->w * v->c;
        float *out = (float *)a->p[1] + row * v->ow * v->c;
        int64_t y = row % v->oh;
        for (int64_t x = 0; x < v->ow; x++, out += v->c)
            for (int64_t c = 0; c < v->c; c += LANES) {
                int lanes = v->c - c < LANES ? (int)(v->c - c) : LANES;
                VEC top = (VEC){0} - INFINITY;
                TAPS(v, y, x, {
                    VEC in = FN(load)(image + at * v->c + c, lanes);
                    BITS above = (in > top) | (in != in);
                    top = (VEC)(((BITS)in & above) | ((BITS)top & ~above));
                })
                FN(store)(out + c, top, lanes);
            }
    }
}

/* g, x, y -> dx, zero before: to the first place of each window that holds its largest value.
   ints: Conv, parts. Items: (n, parts) ranges of channels, which no two windows share. */
KERNEL(max_pool_backward) {
    const Conv *v = (const Conv *)a->n;
    int64_t parts = a->n[16], vectors = (v->c + LANES - 1) / LANES;
    for (int64_t item = begin; item < end; item++) {
        int64_t n = item / parts, first = item % parts * vectors / parts * LANES;
        int64_t last = (item % parts + 1) * vectors / parts * LANES;
        const float *in = (const float *)a->p[1] + n * v->h * v->w * v->c;
        float *dx = (float *)a->p[3] + n * v->h * v->w * v->c;
        int64_t pixel = n * v->oh * v->ow * v->c;
        for (int64_t y = 0; y < v->oh; y++)
            for (int64_t x = 0; x < v->ow; x++, pixel += v->c)
                for (int64_t c = first; c < last; c += LANES) {
                    int lanes = v->c - c < LANES ? (int)(v->c - c) : LANES;
                    BITS g = (BITS)FN(load)((const float *)a->p[0] + pixel + c, lanes);
                    VEC top = FN(load)((const float *)a->p[2] + pixel + c, lanes);
                    BITS open = top == top;
                    TAPS(v, y, x, {
                        float *to = dx + at * v->c + c;
                        BITS hit = (FN(load)(in + at * v->c + c, lanes) == top) & open;
                        FN(store)(to, FN(load)(to, lanes) + (VEC)(g & hit), lanes);
                        open &= ~hit;
                    })
                }
    }
}
#undef TAPS
