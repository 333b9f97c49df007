/* Chains of elementwise operations: a program that is run on blocks of numbers which stay in the
 * first-level cache, so that memory is touched once for the whole chain. */

/* tanh: an odd polynomial near 0, else by exp; below 2 units in the last place. */
INLINE float FN(tanh_value)(float x) {
    float t = fabsf(x), s = x * x;
    float p = -0.00566075976f;
    p = p * s + 0.0206019785f;
    p = p * s - 0.0537292212f;
    p = p * s + 0.133313283f;
    p = p * s - 0.333332777f;
    float far = 1.0f - 2.0f / (FN(exp_within)(t > 20.0f ? 40.0f : 2.0f * t) + 1.0f);
    far = x != x ? x : copysignf(far, x);
    return t < 0.63f ? x + x * s * p : far;
}

/* log of m 2^e, m from sqrt(1/2) to sqrt(2): f - f^2 / 2 + f^3 p(f), f = m - 1. */
INLINE float FN(log_value)(float x) {
    float scaled = x < 1.17549435e-38f ? x * 8388608.0f : x; /* subnormal numbers */
    uint32_t bits = FN(to_bits)(scaled);
    int32_t e = (int32_t)(bits - 0x3f3504f3u) >> 23;
    float f = FN(from_bits)(bits - ((uint32_t)e << 23)) - 1.0f;
    float n = (float)e - (x < 1.17549435e-38f ? 23.0f : 0.0f), s = f * f;
    float p = -0.0785943195f;
    p = p * f + 0.128815919f;
    p = p * f - 0.131287947f;
    p = p * f + 0.141812027f;
    p = p * f - 0.166245505f;
    p = p * f + 0.200022861f;
    p = p * f - 0.250008106f;
    p = p * f + 0.333333164f;
    float y = f * s * p + n * 1.42860677e-6f;
    y = n * 0.693145752f + (f + (y - 0.5f * s));
    y = x == 0.0f ? -INFINITY : y;
    y = x < 0.0f ? NAN : y;
    return x == INFINITY || x != x ? x : y;
}

/* The operations, as core/native/chain.py numbers them. */
#define UNARY(X) \
    X(0, -x) X(1, fabsf(x)) X(2, FN(exp)(x)) X(3, FN(log_value)(x)) X(4, sqrtf(x)) X(5, x * x) \
    X(6, 1.0f / x) X(7, FN(tanh_value)(x)) X(8, FN(erf_value)(x)) X(9, FN(sigmoid_value)(x)) \
    X(10, x < 0.0f ? 0.0f : x) X(11, x * FN(sigmoid_value)(x)) X(12, FN(gelu_value)(x)) \
    X(13, x * FN(sigmoid_value)(FN(tanh_inner)(x))) X(14, x * FN(hardsigmoid_value)(x))
#define BINARY(X) \
    X(32, x + y) X(33, x - y) X(34, x * y) X(35, x / y) \
    X(36, x >= y || x != x ? x : y) X(37, x <= y || x != x ? x : y) \
    X(38, y > 0.0f ? x : 0.0f) X(39, x * FN(gated_slope)(y, y, 1.0f)) \
    X(40, x * FN(gelu_slope)(y)) \
    X(41, x * FN(gated_slope)(y, FN(tanh_inner)(y), 1.59576912f + 0.214064448818f * y * y)) \
    X(42, x * FN(hardswish_slope)(y))

/* Slots: buffers, inputs, outputs, constants. */
enum { FN(BUFFERS) = 16, FN(INPUTS) = 8, FN(OUTPUTS) = 4, FN(CONSTANTS) = 12, FN(LENGTH) = 512 };
enum { FN(SLOTS) = FN(BUFFERS) + FN(INPUTS) + FN(OUTPUTS) + FN(CONSTANTS) };

/* Code (four numbers for each step: operation, slot of the result, slots of the operands),
   constants, inputs, outputs. ints: steps, constants, inputs, outputs, and for each input how
   often each of its numbers is repeated, and its length, 0 where it has all numbers. */
KERNEL(chain) {
    const uint32_t *code = a->p[0];
    const float *constants = a->p[1];
    float buffers[FN(BUFFERS)][FN(LENGTH)], wide[FN(INPUTS)][FN(LENGTH)];
    float fixed[FN(CONSTANTS)][FN(LENGTH)];
    float *slots[FN(SLOTS)];
    int64_t steps = a->n[0], inputs = a->n[2], outputs = a->n[3];
    int64_t most = end - begin < FN(LENGTH) ? end - begin : FN(LENGTH);
    for (int k = 0; k < FN(BUFFERS); k++) slots[k] = buffers[k];
    for (int64_t k = 0; k < a->n[1]; k++) {
        slots[FN(BUFFERS) + FN(INPUTS) + FN(OUTPUTS) + k] = fixed[k];
        for (int64_t i = 0; i < most; i++) fixed[k][i] = constants[k];
    }
    for (int64_t from = begin; from < end; from += FN(LENGTH)) {
        int64_t n = end - from < FN(LENGTH) ? end - from : FN(LENGTH);
        for (int64_t k = 0; k < inputs; k++) {
            float *values = a->p[2 + k];
            int64_t repeat = a->n[4 + 2 * k], length = a->n[5 + 2 * k];
            if (!length) {
                slots[FN(BUFFERS) + k] = values + from;
                continue;
            }
            slots[FN(BUFFERS) + k] = wide[k];
            int64_t place = from / repeat % length, left = repeat - from % repeat;
            for (int64_t i = 0; i < n; i++) {
                wide[k][i] = values[place];
                if (!--left) left = repeat, place = place + 1 == length ? 0 : place + 1;
            }
        }
        for (int64_t k = 0; k < outputs; k++)
            slots[FN(BUFFERS) + FN(INPUTS) + k] = (float *)a->p[2 + FN(INPUTS) + k] + from;
        for (int64_t s = 0; s < steps; s++) {
            const uint32_t *step = code + 4 * s;
            float *out = slots[step[1]];
            const float *xs = slots[step[2]], *ys = slots[step[3]];
            switch (step[0]) {
#define CASE(number, expression) \
    case number: \
        SIMD for (int64_t i = 0; i < n; i++) { \
            float x = xs[i], y = ys[i]; \
            (void)x, (void)y; \
            out[i] = expression; \
        } \
        break;
                UNARY(CASE)
                BINARY(CASE)
#undef CASE
            }
        }
    }
}
#undef UNARY
#undef BINARY
