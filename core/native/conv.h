/* Columns of a convolution for a matrix product (im2col), and the way back (col2im).
 * ints: Conv. Columns are (groups, n * oh * ow, kh * kw * c / groups). */

/* x -> columns. Items are output rows (n, oh). */
KERNEL(im2col) {
    const Conv *v = (const Conv *)a->n;
    int64_t cg = v->c / v->groups, width = v->kh * v->kw * cg, pixels = v->n * v->oh * v->ow;
    for (int64_t g = 0; g < v->groups; g++)
        for (int64_t row = begin; row < end; row++) {
            const float *image = (const float *)a->p[0] + row / v->oh * v->h * v->w * v->c + g * cg;
            float *out = (float *)a->p[1] + (g * pixels + row * v->ow) * width;
            int64_t top = row % v->oh * v->sh - v->top;
            for (int64_t x = 0; x < v->ow; x++)
                for (int64_t i = 0; i < v->kh; i++) {
                    int64_t y = top + i * v->dh, left = x * v->sw - v->left;
                    const float *line = image + y * v->w * v->c;
                    int64_t inside = y >= 0 && y < v->h, run = v->kw * cg;
                    if (inside && v->groups == 1 && v->dw == 1 && left >= 0
                        && left + v->kw <= v->w) {
                        memcpy(out, line + left * v->c, sizeof(float) * (size_t)run);
                        out += run;
                        continue;
                    }
                    for (int64_t j = 0; j < v->kw; j++, left += v->dw, out += cg)
                        if (inside && left >= 0 && left < v->w)
                            memcpy(out, line + left * v->c, sizeof(float) * (size_t)cg);
                        else
                            memset(out, 0, sizeof(float) * (size_t)cg);
                }
        }
}

/* columns -> x: gathers what im2col scattered, so that rows (n, h), the items, stay apart. */
KERNEL(col2im) {
    const Conv *v = (const Conv *)a->n;
    int64_t cg = v->c / v->groups, width = v->kh * v->kw * cg, pixels = v->n * v->oh * v->ow;
    for (int64_t row = begin; row < end; row++) {
        float *out = (float *)a->p[1] + row * v->w * v->c;
        memset(out, 0, sizeof(float) * (size_t)(v->w * v->c));
        for (int64_t i = 0; i < v->kh; i++) {
            int64_t y = row % v->h + v->top - i * v->dh;
            if (y < 0 || y % v->sh || y / v->sh >= v->oh) continue;
            int64_t first = (row / v->h * v->oh + y / v->sh) * v->ow;
            for (int64_t j = 0; j < v->kw; j++)
                for (int64_t x = 0; x < v->ow; x++) {
                    int64_t at = x * v->sw - v->left + j * v->dw;
                    if (at < 0 || at >= v->w) continue;
                    for (int64_t g = 0; g < v->groups; g++) {
                        const float *in = (const float *)a->p[0]
                            + (g * pixels + first + x) * width + (i * v->kw + j) * cg;
                        float *to = out + at * v->c + g * cg;
                        SIMD for (int64_t k = 0; k < cg; k++) to[k] += in[k];
                    }
                }
        }
    }
}
