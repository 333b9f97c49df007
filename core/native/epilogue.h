/* What follows a product, in one pass over its rows while they are in the cache: bias, an addend
 * of the shape of the product, an activation; or a clamp between f[0] and f[1]. In place.
 * bias, addend, rows. ints: length of a row. Items: rows. */

#define ROW(sum, expression) \
    SIMD for (int64_t i = 0; i < length; i++) { \
        float x = sum; \
        out[i] = expression; \
    }
/* Four loops, since one that asks for each number whether there is a bias is no vector loop. */
#define EPILOGUE(name, expression) \
    KERNEL(name) { \
        int64_t length = a->n[0]; \
        float low = a->f[0], high = a->f[1]; \
        const float *bias = a->p[0], *add = a->p[1]; \
        (void)low, (void)high; \
        for (int64_t row = begin; row < end; row++) { \
            float *out = (float *)a->p[2] + row * length; \
            if (a->p[1]) add = (const float *)a->p[1] + row * length; \
            if (bias && add) ROW(out[i] + bias[i] + add[i], expression) \
            else if (bias) ROW(out[i] + bias[i], expression) \
            else if (add) ROW(out[i] + add[i], expression) \
            else ROW(out[i], expression) \
        } \
    }

INLINE float FN(clamped)(float x, float low, float high) { /* NaN stays NaN */
    x = x < low ? low : x;
    return x > high ? high : x;
}

EPILOGUE(end_clamp, FN(clamped)(x, low, high))
EPILOGUE(end_gelu, FN(gelu_value)(x))
EPILOGUE(end_gelu_tanh, x * FN(sigmoid_value)(FN(tanh_inner)(x)))
EPILOGUE(end_silu, x * FN(sigmoid_value)(x))
EPILOGUE(end_hardswish, x * FN(hardsigmoid_value)(x))
EPILOGUE(end_sigmoid, FN(sigmoid_value)(x))
#undef EPILOGUE
#undef ROW
