/* Everything that is compiled once per instruction set. kernels.c includes this file again and
 * again with ISA, LANES and TARGET set; every function carries the attribute TARGET, so that no
 * compiler flag and no pragma is needed. Vectors are never passed between functions that are
 * not inlined. */
#define GLUE(a, b) a##_##b
#define GLUE2(a, b) GLUE(a, b)
#define FN(name) GLUE2(name, ISA)
#define INLINE TARGET static inline __attribute__((always_inline))
#define KERNEL(name) TARGET static void FN(name)(const Args *a, int64_t begin, int64_t end)

#define VEC FN(Vector)
#define BITS FN(VectorBits)
typedef float VEC __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t BITS __attribute__((vector_size(4 * LANES)));

INLINE VEC FN(load)(const float *p, int lanes) {
    VEC v = {0};
    if (lanes == LANES) v = *(const VEC *)p;
    else memcpy(&v, p, sizeof(float) * (size_t)lanes);
    return v;
}

INLINE void FN(store)(float *p, VEC v, int lanes) {
    if (lanes == LANES) *(VEC *)p = v;
    else memcpy(p, &v, sizeof(float) * (size_t)lanes);
}

INLINE VEC FN(clamp)(VEC v, const float *range) {
    BITS below = v < range[0], above = v > range[1];
    VEC low = range[0] - (VEC){0}, high = range[1] - (VEC){0};
    v = (VEC)(((BITS)low & below) | ((BITS)v & ~below));
    return (VEC)(((BITS)high & above) | ((BITS)v & ~above));
}

#include "elementwise.h"
#include "epilogue.h"
#include "rows.h"
#include "conv.h"
#include "depthwise.h"
#include "implicit.h"
#include "winograd.h"
#include "attention.h"
#include "pooling.h"
#include "quantized.h"
#include "decode.h"
#include "training.h"
#include "cartpole.h"
#include "chain.h"

#define ENTRY(name, buffers) {#name, buffers, FN(name)},
static const Entry FN(ENTRIES)[] = {KERNELS(ENTRY){0, 0, 0}};

#undef ENTRY
#undef TILES_OF
#undef BITS
#undef VEC
#undef KERNEL
#undef INLINE
#undef FN
#undef GLUE2
#undef GLUE
