/* Elementwise kernels: plain loops that the compiler vectorises. The polynomials are our own
 * least-maximum-error fits. In place (output = input) is fine. */

INLINE float FN(from_bits)(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE uint32_t FN(to_bits)(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* exp of -86.6 to 88.7: 2^n (1 + r + r^2 p(r)), |r| <= ln 2 / 2; relative error 1e-7. */
INLINE float FN(exp_within)(float x) {
    float magic = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23 rounds to a whole number */
    float n = magic - 12582912.0f;
    float r = x - n * 0.693145752f;
    r -= n * 1.42860677e-6f;
    float p = 0.0013950488f;
    p = p * r + 0.008368888f;
    p = p * r + 0.041666206f;
    p = p * r + 0.16666518f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    /* Twice half the scale, since n may be 128. */
    return p * FN(from_bits)((FN(to_bits)(magic) + 126u) << 23) * 2.0f;
}

INLINE float FN(exp)(float x) {
    float t = x > 88.7228f ? 88.7228f : x;
    float y = FN(exp_within)(t < -86.6f ? -86.6f : t);
    y = x > 88.7228f ? INFINITY : y;
    return x < -86.6f ? 0.0f : y;
}

INLINE float FN(sigmoid_value)(float x) { return 1.0f / (1.0f + FN(exp)(-x)); }

/* erfc(t), t >= 0, as e u P(u) with u = 1 / (1 + 0.3 t) and e = exp(-t^2), which it also gives.
   The relative error is small far into the tail; past 9.3 both are 0. */
INLINE float FN(erfc)(float t, float *e) {
    float near = t > 9.3f ? 9.3f : t, u = 1.0f / (1.0f + 0.3f * near);
    *e = FN(exp_within)(-near * near);
    *e = t > 9.3f ? 0.0f : *e;
    float p = -0.12940675f;
    p = p * u + 0.48495263f;
    p = p * u - 0.5109019f;
    p = p * u + 0.5459855f;
    p = p * u - 0.09331557f;
    p = p * u + 0.2142843f;
    p = p * u + 0.148527f;
    p = p * u + 0.17068467f;
    p = p * u + 0.16919012f;
    return *e * u * p;
}

INLINE float FN(erf_value)(float x) {
    float t = fabsf(x), s = x * x, e, far = copysignf(1.0f - FN(erfc)(t, &e), x);
    float p = 8.585238e-05f; /* erf(x) / x - 1 below 0.9 */
    p = p * s - 0.0008194046f;
    p = p * s + 0.0052056503f;
    p = p * s - 0.026861334f;
    p = p * s + 0.11283733f;
    p = p * s - 0.37612638f;
    p = p * s + 0.12837917f;
    return t < 0.9f ? x + x * p : far;
}

/* Distribution function of the standard normal; e = exp(-x^2 / 2). */
INLINE float FN(normal_cdf)(float x, float *e) {
    float tail = 0.5f * FN(erfc)(fabsf(x) * 0.707106781f, e);
    return x < 0.0f ? tail : 1.0f - tail;
}

INLINE float FN(gelu_value)(float x) {
    float e;
    return x * FN(normal_cdf)(x, &e);
}

INLINE float FN(gelu_slope)(float x) {
    float e, cdf = FN(normal_cdf)(x, &e);
    return cdf + x * 0.398942280f * e;
}

INLINE float FN(hardsigmoid_value)(float x) { /* NaN stays NaN */
    float t = x * (1.0f / 6.0f) + 0.5f;
    t = t < 0.0f ? 0.0f : t;
    return t > 1.0f ? 1.0f : t;
}

INLINE float FN(hardswish_slope)(float x) {
    float t = x * (1.0f / 3.0f) + 0.5f;
    t = x >= 3.0f ? 1.0f : t;
    return x <= -3.0f ? 0.0f : t;
}

/* GELU with tanh is x sigmoid(u), u = 2 sqrt(2/pi) (x + 0.044715 x^3). */
INLINE float FN(tanh_inner)(float x) { return x * (1.59576912f + 0.0713548162726f * x * x); }

/* Slope of x sigmoid(u(x)). */
INLINE float FN(gated_slope)(float x, float u, float slope) {
    float s = FN(sigmoid_value)(u);
    return s + x * slope * s * (1.0f - s);
}

#define MAP1(name, expression) \
    KERNEL(name) { \
        const float *xs = a->p[0]; \
        float *out = a->p[1]; \
        SIMD for (int64_t i = begin; i < end; i++) { \
            float x = xs[i]; \
            out[i] = expression; \
        } \
    }
#define MAP2(name, expression) \
    KERNEL(name) { \
        const float *gs = a->p[0], *xs = a->p[1]; \
        float *out = a->p[2]; \
        SIMD for (int64_t i = begin; i < end; i++) { \
            float x = xs[i]; \
            out[i] = gs[i] * (expression); \
        } \
    }

MAP1(relu, x < 0.0f ? 0.0f : x) /* NaN stays NaN */
MAP1(sigmoid, FN(sigmoid_value)(x))
MAP1(hardswish, x * FN(hardsigmoid_value)(x))
MAP2(hardswish_backward, FN(hardswish_slope)(x))
MAP1(erf, FN(erf_value)(x))
MAP1(gelu, FN(gelu_value)(x))
MAP1(gelu_tanh, x * FN(sigmoid_value)(FN(tanh_inner)(x)))
MAP1(silu, x * FN(sigmoid_value)(x))
MAP2(gelu_backward, FN(gelu_slope)(x))
MAP2(gelu_tanh_backward,
     FN(gated_slope)(x, FN(tanh_inner)(x), 1.59576912f + 0.214064448818f * x * x))
MAP2(silu_backward, FN(gated_slope)(x, x, 1.0f))
#undef MAP1
#undef MAP2

KERNEL(relu_backward) { /* g where the output was positive */
    const float *g = a->p[0], *y = a->p[1];
    float *out = a->p[2];
    SIMD for (int64_t i = begin; i < end; i++) out[i] = y[i] > 0.0f ? g[i] : 0.0f;
}

/* floats: low and high; NaN stays NaN */
KERNEL(hardtanh) {
    const float *xs = a->p[0], low = a->f[0], high = a->f[1];
    float *out = a->p[1];
    SIMD for (int64_t i = begin; i < end; i++) {
        float x = xs[i] < low ? low : xs[i];
        out[i] = x > high ? high : x;
    }
}

KERNEL(hardtanh_backward) { /* g where the output was inside */
    const float *g = a->p[0], *y = a->p[1], low = a->f[0], high = a->f[1];
    float *out = a->p[2];
    SIMD for (int64_t i = begin; i < end; i++)
        out[i] = (y[i] > low) & (y[i] < high) ? g[i] : 0.0f;
}

KERNEL(bfloat16_to_float32) {
    const uint16_t *x = a->p[0];
    float *y = a->p[1];
    SIMD for (int64_t i = begin; i < end; i++) y[i] = FN(from_bits)((uint32_t)x[i] << 16);
}

KERNEL(float32_to_bfloat16) { /* to nearest even; NaN stays NaN */
    const float *x = a->p[0];
    uint16_t *y = a->p[1];
    SIMD for (int64_t i = begin; i < end; i++) {
        uint32_t b = FN(to_bits)(x[i]), rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
        y[i] = (uint16_t)((b & 0x7fffffffu) > 0x7f800000u ? (b >> 16) | 0x40u : rounded);
    }
}

KERNEL(float16_to_float32) { /* the product moves the exponent and normalises subnormals */
    const uint16_t *x = a->p[0];
    float *y = a->p[1];
    SIMD for (int64_t i = begin; i < end; i++) {
        uint32_t h = x[i], magnitude = (h & 0x7fffu) << 13;
        uint32_t b = FN(to_bits)(FN(from_bits)(magnitude) * 0x1p112f);
        b = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : b; /* infinity and NaN */
        y[i] = FN(from_bits)(b | (h & 0x8000u) << 16);
    }
}

KERNEL(float32_to_float16) { /* to nearest even */
    const float *x = a->p[0];
    uint16_t *y = a->p[1];
    SIMD for (int64_t i = begin; i < end; i++) {
        uint32_t b = FN(to_bits)(x[i]), m = b & 0x7fffffffu;
        uint32_t normal = (m - 0x38000000u + 0xfffu + ((m >> 13) & 1u)) >> 13;
        uint32_t tiny = FN(to_bits)(FN(from_bits)(m) + 0.5f) - 0x3f000000u; /* FPU rounds */
        uint32_t h = m < 0x38800000u ? tiny : normal;
        h = m >= 0x477ff000u ? 0x7c00u : h;
        h = m > 0x7f800000u ? 0x7e00u | ((m >> 13) & 0x3ffu) : h;
        y[i] = (uint16_t)(h | (b >> 16 & 0x8000u));
    }
}

/* Philox 4x32-10 (Salmon et al. 2011), as core/random.py defines it. ints: low and high word of
   the seed, first block. Items are blocks of four words. */
KERNEL(philox) {
    uint32_t *out = a->p[0];
    uint64_t first = (uint64_t)a->n[2];
    SIMD for (int64_t i = begin; i < end; i++) {
        uint32_t k0 = (uint32_t)a->n[0], k1 = (uint32_t)a->n[1];
        uint64_t low = first + (uint64_t)i;
        uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32);
        uint32_t c2 = 0, c3 = 0;
        for (int round = 0; round < 10; round++) {
            uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1, c3 = (uint32_t)p0;
            k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
        }
        out[4 * i] = c0, out[4 * i + 1] = c1, out[4 * i + 2] = c2, out[4 * i + 3] = c3;
    }
}
