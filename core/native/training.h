/* What a training step does beside products: the loss of a classifier, and Adam. */

/* x, class ids -> loss of each row (M), logsumexp of each row (M, float64). ints: row length.
   The caller has checked the ids; one outside gives NaN. */
KERNEL(cross_entropy) {
    int64_t d = a->n[0];
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)a->p[0] + r * d;
        int64_t id = ((const int64_t *)a->p[1])[r];
        float top = x[0], sum = 0.0f;
        if (d < LANES) for (int64_t i = 1; i < d; i++) top = x[i] > top ? x[i] : top;
        else top = FN(row_max)(x, d);
        top = top == -INFINITY ? 0.0f : top;
        if (d < LANES) for (int64_t i = 0; i < d; i++) sum += FN(exp)(x[i] - top);
        else SIMD_SUM(sum) for (int64_t i = 0; i < d; i++) sum += FN(exp)(x[i] - top);
        float lse = top + logf(sum);
        ((float *)a->p[2])[r] = id >= 0 && id < d ? lse - x[id] : NAN;
        ((double *)a->p[3])[r] = lse;
    }
}

/* x, class ids, logsumexp -> scale (softmax(x) - 1 at the class). ints: row length; floats: scale. */
KERNEL(cross_entropy_backward) {
    int64_t d = a->n[0];
    float scale = a->f[0];
    for (int64_t r = begin; r < end; r++) {
        const float *x = (const float *)a->p[0] + r * d;
        int64_t id = ((const int64_t *)a->p[1])[r];
        float *dx = (float *)a->p[3] + r * d, lse = (float)((const double *)a->p[2])[r];
        SIMD for (int64_t i = 0; i < d; i++) dx[i] = scale * FN(exp)(x[i] - lse);
        if (id >= 0 && id < d) dx[id] -= scale;
    }
}

/* One step of Adam (core/optim/adam.py): gradient, parameters, averages of it and of its square,
   and the largest of the latter or None. floats: rate, shifted epsilon, 1 - beta1, beta2,
   1 - beta2, shrink, pull, sign. The averages of units that no longer learn fall below the
   smallest normal number, where processors take four times as long: they become zero. */
KERNEL(adam) {
    unsigned int mode = subnormals_are_zero();
    const float *gs = a->p[0];
    float *ps = a->p[1], *ms = a->p[2], *vs = a->p[3], *tops = a->p[4];
    float rate = a->f[0], shifted = a->f[1], keep1 = a->f[2], keep2 = a->f[3], new2 = a->f[4];
    float shrink = a->f[5], pull = a->f[6], sign = a->f[7];
    if (tops) {
        SIMD for (int64_t i = begin; i < end; i++) {
            float p = ps[i], g = sign * gs[i] + pull * p;
            float m = ms[i] + keep1 * (g - ms[i]), v = keep2 * vs[i] + new2 * g * g;
            float top = tops[i] >= v || tops[i] != tops[i] ? tops[i] : v; /* NaN stays */
            tops[i] = top;
            ms[i] = m, vs[i] = v;
            ps[i] = shrink * p + rate * m / (sqrtf(top) + shifted);
        }
    } else {
        SIMD for (int64_t i = begin; i < end; i++) {
            float p = ps[i], g = sign * gs[i] + pull * p;
            float m = ms[i] + keep1 * (g - ms[i]), v = keep2 * vs[i] + new2 * g * g;
            ms[i] = m, vs[i] = v;
            ps[i] = shrink * p + rate * m / (sqrtf(v) + shifted);
        }
    }
    subnormals_as(mode);
}
