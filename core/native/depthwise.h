/* Depthwise convolution on channels-last memory: one filter (kh, kw) for each channel.
 *
 * The forward pass and the gradient of the input are the same walk. Each output row has a list
 * of row taps (an input row and a row of weights) and of column taps: tap k of output pixel j
 * reads input pixel j * step + off[k]. With stride s, the gradient has s phases of pixels, each
 * with taps of its own and step 1. */

typedef struct {
    int rows, cols;
    int64_t c, width, step, count; /* channels, input width, input step, output pixels */
    int64_t stride;                /* floats between output pixels */
    const float *row[MAX_TAPS], *weight[MAX_TAPS];
    int64_t off[MAX_TAPS], at[MAX_TAPS]; /* input offset in pixels, weight offset in floats */
} FN(Taps);

/* `many` output pixels from pixel j, channels [c, c + lanes). */
INLINE void FN(pixels)(const FN(Taps) *t, float *out, const float *bias, const float *clamp,
                       int64_t j, int many, int border, int64_t c, int lanes) {
    VEC sum[8];
    for (int m = 0; m < many; m++) sum[m] = bias ? FN(load)(bias + c, lanes) : (VEC){0};
    for (int k = 0; k < t->cols; k++) {
        int64_t x = j * t->step + t->off[k];
        if (border && (x < 0 || x >= t->width)) continue;
        for (int r = 0; r < t->rows; r++) {
            VEC w = FN(load)(t->weight[r] + t->at[k] + c, lanes);
            const float *in = t->row[r] + x * t->c + c;
            UNROLL for (int m = 0; m < many; m++)
                sum[m] += w * FN(load)(in + m * t->step * t->c, lanes);
        }
    }
    for (int m = 0; m < many; m++) {
        VEC v = sum[m];
        if (clamp) v = FN(clamp)(v, clamp);
        FN(store)(out + (j + m) * t->stride + c, v, lanes);
    }
}

INLINE void FN(tap_row)(const FN(Taps) *t, float *out, const float *bias, const float *clamp) {
    int64_t low = 0, high = t->count; /* output pixels whose taps are all inside */
    for (int k = 0; k < t->cols; k++) {
        while (low < high && low * t->step + t->off[k] < 0) low++;
        while (high > low && (high - 1) * t->step + t->off[k] >= t->width) high--;
    }
    for (int64_t j = 0; j < t->count;) {
        int inside = j >= low && j + 8 <= high;
        for (int64_t c = 0; c < t->c; c += LANES) {
            /* The last vector overlaps the one before; only few channels need partial ones. */
            int64_t at = c + LANES <= t->c || t->c < LANES ? c : t->c - LANES;
            if (t->c < LANES) FN(pixels)(t, out, bias, clamp, j, 1, 1, at, (int)t->c);
            else if (inside) FN(pixels)(t, out, bias, clamp, j, 8, 0, at, LANES);
            else FN(pixels)(t, out, bias, clamp, j, 1, 1, at, LANES);
        }
        j += inside && t->c >= LANES ? 8 : 1;
    }
}

/* x, weight (kh, kw, c), bias -> y clamped to floats [low, high]. Items: output rows (n, oh). */
KERNEL(depthwise) {
    const Conv *v = (const Conv *)a->n;
    const float *clamp = a->f[0] > -INFINITY || a->f[1] < INFINITY ? a->f : 0;
    FN(Taps) t = {.cols = (int)v->kw, .c = v->c, .width = v->w, .step = v->sw, .count = v->ow,
                  .stride = v->c};
    for (int k = 0; k < t.cols; k++) t.off[k] = k * v->dw - v->left, t.at[k] = k * v->c;
    for (int64_t row = begin; row < end; row++) {
        t.rows = 0;
        for (int64_t i = 0; i < v->kh; i++) {
            int64_t y = row % v->oh * v->sh - v->top + i * v->dh;
            if (y < 0 || y >= v->h) continue;
            t.row[t.rows] = (const float *)a->p[0] + (row / v->oh * v->h + y) * v->w * v->c;
            t.weight[t.rows++] = (const float *)a->p[1] + i * v->kw * v->c;
        }
        FN(tap_row)(&t, (float *)a->p[3] + row * v->ow * v->c, a->p[2], clamp);
    }
}

/* g, weight -> dx. Items: input rows (n, h). */
KERNEL(depthwise_input_grad) {
    const Conv *v = (const Conv *)a->n;
    for (int64_t row = begin; row < end; row++) {
        FN(Taps) t = {.c = v->c, .width = v->ow, .step = 1, .stride = v->sw * v->c};
        for (int64_t i = 0; i < v->kh; i++) {
            int64_t y = row % v->h + v->top - i * v->dh;
            if (y < 0 || y % v->sh || y / v->sh >= v->oh) continue;
            t.row[t.rows] = (const float *)a->p[0]
                + (row / v->h * v->oh + y / v->sh) * v->ow * v->c;
            t.weight[t.rows++] = (const float *)a->p[1] + i * v->kw * v->c;
        }
        for (int64_t phase = 0; phase < v->sw && phase < v->w; phase++) {
            t.cols = 0;
            t.count = (v->w - phase + v->sw - 1) / v->sw;
            for (int64_t k = 0; k < v->kw; k++) {
                int64_t x = phase + v->left - k * v->dw;
                if (x % v->sw) continue;
                t.off[t.cols] = x / v->sw, t.at[t.cols++] = k * v->c;
            }
            FN(tap_row)(&t, (float *)a->p[2] + (row * v->w + phase) * v->c, 0, 0);
        }
    }
}

/* Adds the gradient of `many` taps (inputs in[], valid for all pixels [low, high)) to dw[]. */
INLINE void FN(tap_sums)(int many, const float *const *in, float *const *dw, const float *g,
                         int64_t low, int64_t high, int64_t step, int64_t c) {
    for (int64_t from = 0; from < c; from += LANES) {
        int lanes = c < LANES ? (int)c : LANES;
        int64_t at = from + lanes <= c ? from : c - lanes;
        VEC sum[9] = {0};
        for (int64_t j = low; j < high; j++) {
            VEC gj = FN(load)(g + j * c + at, lanes);
            UNROLL for (int k = 0; k < many; k++)
                sum[k] += gj * FN(load)(in[k] + j * step * c + at, lanes);
        }
        for (int k = 0; k < many; k++)
            for (int i = (int)(from - at); i < lanes; i++) dw[k][at + i] += sum[k][i];
    }
}

/* Gradients of the taps of one output row that are held back until there are nine of them. */
typedef struct {
    int held;
    const float *in[9];
    float *dw[9];
    int64_t first[9], last[9]; /* output pixels whose input is inside */
} FN(Batch);

INLINE void FN(flush)(FN(Batch) *b, const float *g, int64_t step, int64_t c) {
    for (int k = 0, many; k < b->held; k += many) {
        many = b->held - k >= 9 ? 9 : b->held - k >= 3 ? 3 : 1;
        int64_t low = b->first[k], high = b->last[k]; /* where all of them are inside */
        for (int i = k; i < k + many; i++) {
            low = b->first[i] > low ? b->first[i] : low;
            high = b->last[i] < high ? b->last[i] : high;
        }
        high = high > low ? high : low;
        for (int i = k; i < k + many; i++) {
            int64_t stop = low < b->last[i] ? low : b->last[i];
            int64_t start = high > b->first[i] ? high : b->first[i];
            FN(tap_sums)(1, b->in + i, b->dw + i, g, b->first[i], stop, step, c);
            FN(tap_sums)(1, b->in + i, b->dw + i, g, start, b->last[i], step, c);
        }
        if (many == 9) FN(tap_sums)(9, b->in + k, b->dw + k, g, low, high, step, c);
        else if (many == 3) FN(tap_sums)(3, b->in + k, b->dw + k, g, low, high, step, c);
        else FN(tap_sums)(1, b->in + k, b->dw + k, g, low, high, step, c);
    }
    b->held = 0;
}

/* g, x -> partial dw (blocks, kh, kw, c), zero before. Items: output rows (n, oh). */
KERNEL(depthwise_weight_grad) {
    const Conv *v = (const Conv *)a->n;
    float *out = (float *)a->p[2] + begin / a->grain * v->kh * v->kw * v->c;
    for (int64_t row = begin; row < end; row++) {
        const float *g = (const float *)a->p[0] + row * v->ow * v->c;
        FN(Batch) batch = {0};
        for (int64_t tap = 0; tap < v->kh * v->kw; tap++) {
            int64_t y = row % v->oh * v->sh - v->top + tap / v->kw * v->dh;
            int64_t off = tap % v->kw * v->dw - v->left, first = 0, last = v->ow;
            if (y < 0 || y >= v->h) continue;
            while (first < last && first * v->sw + off < 0) first++;
            while (last > first && (last - 1) * v->sw + off >= v->w) last--;
            if (first == last) continue;
            int k = batch.held++;
            batch.in[k] = (const float *)a->p[1] + ((row / v->oh * v->h + y) * v->w + off) * v->c;
            batch.dw[k] = out + tap * v->c;
            batch.first[k] = first, batch.last[k] = last;
            if (batch.held == 9) FN(flush)(&batch, g, v->sw, v->c);
        }
        FN(flush)(&batch, g, v->sw, v->c);
    }
}
