/* Weights of few bits. A row is a run of blocks of bytes as core/quantization.py describes them. For
 * each format one function gives a group of 32 numbers of a row in float32, exactly; products, which
 * read every weight once, and rows of numbers are made of it. Products are summed in float32. */

#define INTS FN(VectorInts)
#define PARTS (32 / LANES)
#define EACH UNROLL for (int i = 0; i < PARTS; i++)
typedef int32_t INTS __attribute__((vector_size(4 * LANES)));

/* One number in each lane: of LANES bytes, signed or not, or of LANES times two bytes. No compiler
   widens bytes well from plain vector code. */
#if LANES == 16
INLINE INTS FN(bytes)(const void *p) { return (INTS)_mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
INLINE INTS FN(signed_bytes)(const void *p) {
    return (INTS)_mm512_cvtepi8_epi32(_mm_loadu_si128(p));
}
INLINE INTS FN(shorts)(const void *p) { return (INTS)_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)); }
#elif LANES == 8
INLINE INTS FN(bytes)(const void *p) { return (INTS)_mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
INLINE INTS FN(signed_bytes)(const void *p) {
    return (INTS)_mm256_cvtepi8_epi32(_mm_loadl_epi64(p));
}
INLINE INTS FN(shorts)(const void *p) { return (INTS)_mm256_cvtepu16_epi32(_mm_loadu_si128(p)); }
#else
INLINE INTS FN(bytes)(const uint8_t *p) { return (INTS){p[0], p[1], p[2], p[3]}; }
INLINE INTS FN(signed_bytes)(const void *bytes) {
    const int8_t *p = bytes;
    return (INTS){p[0], p[1], p[2], p[3]};
}
INLINE INTS FN(shorts)(const void *bytes) {
    uint16_t p[4];
    memcpy(p, bytes, 8);
    return (INTS){p[0], p[1], p[2], p[3]};
}
#endif

INLINE VEC FN(floats)(INTS v) { return __builtin_convertvector(v, VEC); }

#if LANES >= 8
INLINE VEC FN(halves)(const void *p) { /* LANES times float16 */
#if LANES == 16
    return (VEC)_mm512_cvtph_ps(_mm256_loadu_si256(p));
#else
    return (VEC)_mm256_cvtph_ps(_mm_loadu_si128(p));
#endif
}
INLINE float FN(half)(const uint8_t *p) { /* a float16 */
    uint16_t h;
    memcpy(&h, p, 2);
    return _cvtsh_ss(h);
}
#else
INLINE float FN(half)(const uint8_t *p) { /* as float16_to_float32 in elementwise.h */
    uint32_t h = p[0] | (uint32_t)p[1] << 8, magnitude = (h & 0x7fffu) << 13;
    uint32_t b = FN(to_bits)(FN(from_bits)(magnitude) * 0x1p112f);
    b = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : b;
    return FN(from_bits)(b | (h & 0x8000u) << 16);
}
INLINE VEC FN(halves)(const uint8_t *p) {
    return (VEC){FN(half)(p), FN(half)(p + 2), FN(half)(p + 4), FN(half)(p + 6)};
}
#endif

/* Two float16. */
INLINE void FN(pair)(const uint8_t *p, float *first, float *second) {
#if LANES >= 8
    __m128 both = _mm_cvtph_ps(_mm_loadu_si32(p));
    *first = both[0], *second = both[1];
#else
    *first = FN(half)(p), *second = FN(half)(p + 2);
#endif
}

/* 16 bytes of two numbers each, times scale, plus least: the lower four bits are the first half of
   the group. */
INLINE void FN(fourths)(const uint8_t *p, float scale, float least, VEC *w) {
#if LANES == 16
    const VEC steps = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    __m512 table = (__m512)(steps * scale + least); /* the look-up sees the lower four bits alone */
    INTS both = FN(bytes)(p);
    w[0] = (VEC)_mm512_permutexvar_ps((__m512i)both, table);
    w[1] = (VEC)_mm512_permutexvar_ps((__m512i)(both >> 4), table);
#else
    UNROLL for (int i = 0; i < PARTS / 2; i++) {
        INTS both = FN(bytes)(p + i * LANES);
        w[i] = FN(floats)(both & 15) * scale + least;
        w[PARTS / 2 + i] = FN(floats)(both >> 4) * scale + least;
    }
#endif
}

/* 16 bytes of two numbers each: the lower four bits are the first half of the group. */
INLINE void FN(nibbles)(const uint8_t *p, INTS *q) {
    UNROLL for (int i = 0; i < PARTS / 2; i++) {
        INTS both = FN(bytes)(p + i * LANES);
        q[i] = both & 15, q[PARTS / 2 + i] = both >> 4;
    }
}

/* -- the formats: numbers [32 group, 32 group + 32) of a row -- */

INLINE void FN(read_q8_0)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 34 * group;
    float scale = FN(half)(block);
    EACH w[i] = FN(floats)(FN(signed_bytes)(block + 2 + i * LANES)) * scale;
}

INLINE void FN(read_q4_0)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 18 * group;
    float scale = FN(half)(block);
    FN(fourths)(block + 2, scale, -8 * scale, w); /* exact: few bits are multiplied and added */
}

INLINE void FN(read_q4_1)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 20 * group;
    float scale, least;
    FN(pair)(block, &scale, &least);
    FN(fourths)(block + 4, scale, least, w);
}

/* The numbers with a fifth bit, which stands in the bits of a word. */
INLINE void FN(fifths)(const uint8_t *p, INTS *q) {
    uint32_t high;
    memcpy(&high, p, 4);
    FN(nibbles)(p + 4, q);
    EACH {
        INTS bits;
        UNROLL for (int j = 0; j < LANES; j++) bits[j] = (int32_t)1 << j;
        q[i] |= ((INTS)((bits & (int32_t)(high >> (i * LANES) & 0xffffu)) != 0)) & 16;
    }
}

INLINE void FN(read_q5_0)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 22 * group;
    float scale = FN(half)(block);
    INTS q[PARTS];
    FN(fifths)(block + 2, q);
    EACH w[i] = FN(floats)(q[i] - 16) * scale;
}

INLINE void FN(read_q5_1)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 24 * group;
    float scale, least;
    INTS q[PARTS];
    FN(pair)(block, &scale, &least);
    FN(fifths)(block + 4, q);
    EACH w[i] = FN(floats)(q[i]) * scale + least;
}

/* Blocks of 256: a scale and a minimum of six bits for each of eight groups. */
INLINE void FN(group_scale)(const uint8_t *block, int at, float *scale, float *least) {
    const uint8_t *p = block + 4;
    int s = at < 4 ? p[at] & 63 : (p[at + 4] & 15) | (p[at - 4] >> 6) << 4;
    int m = at < 4 ? p[at + 4] & 63 : p[at + 4] >> 4 | (p[at] >> 6) << 4;
    FN(pair)(block, scale, least);
    *scale *= (float)s, *least *= (float)m;
}

INLINE void FN(read_q4_k)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 144 * (group >> 3);
    int at = group & 7;
    float scale, least;
    FN(group_scale)(block, at, &scale, &least);
    EACH {
        INTS q = FN(bytes)(block + 16 + 32 * (at >> 1) + i * LANES) >> (at & 1) * 4 & 15;
        w[i] = FN(floats)(q) * scale - least;
    }
}

INLINE void FN(read_q5_k)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 176 * (group >> 3);
    int at = group & 7;
    float scale, least;
    FN(group_scale)(block, at, &scale, &least);
    EACH {
        INTS q = FN(bytes)(block + 48 + 32 * (at >> 1) + i * LANES) >> (at & 1) * 4 & 15;
        q |= (FN(bytes)(block + 16 + i * LANES) >> at & 1) << 4;
        w[i] = FN(floats)(q) * scale - least;
    }
}

/* Blocks of 256 with a scale for 16 numbers: the lower four bits, the upper two, the scales. */
INLINE void FN(read_q6_k)(const uint8_t *row, int64_t group, VEC *w) {
    const uint8_t *block = row + 210 * (group >> 3);
    int half = group >> 2 & 1, at = group & 3;
    float scale = FN(half)(block + 208);
    EACH {
        int k = i * LANES;
        INTS q = FN(bytes)(block + 64 * half + 32 * (at & 1) + k) >> (at >> 1) * 4 & 15;
        q |= (FN(bytes)(block + 128 + 32 * half + k) >> 2 * at & 3) << 4;
        float own = scale * (float)(int8_t)block[192 + 8 * half + 2 * at + (k >> 4)];
        w[i] = FN(floats)(q - 32) * own;
    }
}

INLINE void FN(read_int8)(const uint8_t *row, int64_t group, VEC *w) {
    float scale;
    memcpy(&scale, row, 4);
    EACH w[i] = FN(floats)(FN(signed_bytes)(row + 4 + 32 * group + i * LANES)) * scale;
}

INLINE void FN(read_bfloat16)(const uint8_t *row, int64_t group, VEC *w) {
    EACH w[i] = (VEC)(FN(shorts)(row + 64 * group + 2 * i * LANES) << 16);
}

INLINE void FN(read_float16)(const uint8_t *row, int64_t group, VEC *w) {
    EACH w[i] = FN(halves)(row + 64 * group + 2 * i * LANES);
}

INLINE void FN(read_float32)(const uint8_t *row, int64_t group, VEC *w) {
    EACH w[i] = FN(load)((const float *)row + 32 * group + i * LANES, LANES);
}

/* -- the kernels -- */

enum { FN(AHEAD) = 1024 };

INLINE float FN(total)(VEC v) {
    float part[LANES];
    memcpy(part, &v, sizeof part);
    UNROLL for (int n = LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++) part[i] += part[i + n];
    return part[0];
}

/* Weights below one another in one product: up to three, of which the second and third begin at
   the rows n[4] and n[5]. Gives the rows of [begin, end) that are in one of them, and arguments whose
   weight begins where the first row of all would be. */
INLINE Args FN(one_weight)(const Args *a, int which, int64_t *begin, int64_t *end) {
    int64_t first = which ? a->n[3 + which] : 0;
    int64_t stop = which < 2 && a->p[4 + which] ? a->n[4 + which] : a->n[3];
    Args own = *a;
    if (which) own.p[0] = (void *)((uintptr_t)a->p[3 + which] - (uintptr_t)(first * a->n[1]));
    *begin = *begin > first ? *begin : first;
    *end = *end < stop ? *end : stop;
    return own;
}

/* product: weight, x, bias or none, out, a second and a third weight or none. ints: groups of a row,
   its bytes, rows of x, rows of all weights, the first rows of the second and third. x is (rows, 32
   groups), out (rows, rows of all weights). Items: rows of all weights.
   A tile is several rows of the weight by one of x, or the other way round: sums that do not wait
   for each other.

   numbers: weight, out. ints: groups of a row, its bytes. Items: rows. */
#define FORMAT(name) \
    INLINE void FN(tile_##name)(const Args *a, int64_t o, int64_t r, int outs, int rows) { \
        int64_t groups = a->n[0], stride = a->n[1], unit = stride / (groups | !groups); \
        int64_t rest = FN(AHEAD) % stride, wrap = (stride - rest) / unit; \
        int64_t far = 4 * (FN(AHEAD) - rest) + rest, over = far + 3 * stride; \
        const uint8_t *weight = (const uint8_t *)a->p[0] + o * stride; \
        const float *x = (const float *)a->p[1] + r * groups * 32, *bias = a->p[2]; \
        float *out = (float *)a->p[3] + r * a->n[3] + o; \
        VEC sums[4] = {0}, w[PARTS]; \
        for (int64_t g = 0; g < groups; g++) \
            UNROLL for (int m = 0; m < outs; m++) { \
                FN(read_##name)(weight + m * stride, g, w); \
                if (outs == 4) \
                    __builtin_prefetch(weight + m * stride + g * unit + (g < wrap ? far : over)); \
                UNROLL for (int n = 0; n < rows; n++) \
                    EACH sums[m * rows + n] += \
                        w[i] * FN(load)(x + (n * groups + g) * 32 + i * LANES, LANES); \
            } \
        UNROLL for (int m = 0; m < outs; m++) \
            UNROLL for (int n = 0; n < rows; n++) \
                out[n * a->n[3] + m] = FN(total)(sums[m * rows + n]) + (bias ? bias[o + m] : 0); \
    } \
    INLINE void FN(rows_##name)(const Args *a, int64_t begin, int64_t end) { \
        int64_t rows = a->n[2], r = 0; \
        for (; r + 4 <= rows; r += 4) \
            for (int64_t o = begin; o < end; o++) FN(tile_##name)(a, o, r, 1, 4); \
        for (; r < rows; r++) { \
            int64_t o = begin; \
            for (; o + 4 <= end; o += 4) FN(tile_##name)(a, o, r, 4, 1); \
            for (; o < end; o++) FN(tile_##name)(a, o, r, 1, 1); \
        } \
    } \
    KERNEL(product_##name) { \
        for (int i = 0; i < 3 && (!i || a->p[3 + i]); i++) { \
            int64_t first = begin, stop = end; \
            Args own = FN(one_weight)(a, i, &first, &stop); \
            if (first < stop) FN(rows_##name)(&own, first, stop); \
        } \
    } \
    KERNEL(numbers_##name) { \
        int64_t groups = a->n[0]; \
        for (int64_t row = begin; row < end; row++) { \
            const uint8_t *bytes = (const uint8_t *)a->p[0] + row * a->n[1]; \
            float *out = (float *)a->p[1] + row * groups * 32; \
            for (int64_t g = 0; g < groups; g++) { \
                VEC w[PARTS]; \
                FN(read_##name)(bytes, g, w); \
                EACH FN(store)(out + g * 32 + i * LANES, w[i], LANES); \
            } \
        } \
    }

FORMAT(q8_0)
FORMAT(q4_0)
FORMAT(q4_1)
FORMAT(q5_0)
FORMAT(q5_1)
FORMAT(q4_k)
FORMAT(q5_k)
FORMAT(q6_k)
FORMAT(int8)
FORMAT(bfloat16)
FORMAT(float16)
FORMAT(float32)
#undef FORMAT
#undef EACH
#undef PARTS
#undef INTS
