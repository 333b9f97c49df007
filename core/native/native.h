/* What the files of the extension share: a kernel's arguments, the thread pool, the tables. */
#ifndef BESTIARY_NATIVE_H
#define BESTIARY_NATIVE_H

#include <stdint.h>

/* One struct serves every kernel: buffers in the order of the table below, whole numbers and
   floats in the order that the kernel's own comment or struct gives. */
typedef struct {
    void *p[14];
    int64_t n[20];
    float f[10];
    int64_t grain; /* items in a block; a reduction writes partial number begin / grain */
} Args;

/* A kernel computes the items [begin, end). Blocks start at multiples of `grain`, whatever the
   number of threads, so results never depend on it. */
typedef void (*Kernel)(const Args *args, int64_t begin, int64_t end);

void pool_run(Kernel kernel, const Args *args, int64_t total);
void pool_init(int threads);
void pool_set_threads(int threads);
int pool_get_threads(void);
int pool_started(void); /* threads running now: none before the first parallel call */

/* Geometry of a convolution on channels-last memory; Args.n of im2col, col2im, depthwise and
   conv begins with it. x is (n, h, w, c), the output (n, oh, ow, o). */
typedef struct {
    int64_t n, h, w, c, oh, ow, o, kh, kw, sh, sw, top, left, dh, dw, groups;
} Conv;

enum { MAX_TAPS = 64 }; /* largest height and width of a depthwise kernel */

/* A format of weights of few bits. */
#define STORED(X, name) X(product_##name, "bf?fF?b?b") X(numbers_##name, "bF")

/* name, buffers: f float32, d float64, h 16-bit, u uint32,
   l int64, b bytes, v float32 of any strides; capital = written, ? = may be None */
#define KERNELS(X) \
    X(erf, "fF") X(gelu, "fF") X(gelu_tanh, "fF") X(silu, "fF") \
    X(relu, "fF") X(sigmoid, "fF") X(hardswish, "fF") \
    X(hardtanh, "fF") X(hardtanh_backward, "ffF") \
    X(relu_backward, "ffF") X(hardswish_backward, "ffF") \
    X(gelu_backward, "ffF") X(gelu_tanh_backward, "ffF") X(silu_backward, "ffF") \
    X(bfloat16_to_float32, "hF") X(float32_to_bfloat16, "fH") \
    X(float16_to_float32, "hF") X(float32_to_float16, "fH") \
    X(philox, "U") \
    X(end_clamp, "?f?fF") X(end_gelu, "?f?fF") X(end_gelu_tanh, "?f?fF") \
    X(end_silu, "?f?fF") X(end_hardswish, "?f?fF") X(end_sigmoid, "?f?fF") \
    X(softmax, "fF?F") X(softmax_backward, "ffF") \
    X(log_softmax, "fF") X(log_softmax_backward, "ffF") \
    X(layer_norm, "fffFFF") X(layer_norm_backward, "fffffF") X(layer_norm_sums, "ffffD") \
    X(column_sum, "fD") X(channel_stats, "fD") X(channel_sums, "fffD") X(channel_affine, "ffffF") \
    X(batch_norm_backward, "ffffffF") \
    X(im2col, "fF") X(col2im, "fF") \
    X(depthwise, "ff?fF") X(depthwise_input_grad, "ffF") X(depthwise_weight_grad, "ffF") \
    X(conv_pack, "fF") X(conv, "ff?f?fF") X(conv_weight_grad, "ffF") \
    X(winograd4, "ff?f?fF") X(winograd2, "ff?f?fF") \
    X(max_pool, "fF") X(max_pool_backward, "fffF") \
    STORED(X, q8_0) STORED(X, q4_0) STORED(X, q4_1) STORED(X, q5_0) STORED(X, q5_1) \
    STORED(X, q4_k) STORED(X, q5_k) STORED(X, q6_k) \
    STORED(X, int8) STORED(X, bfloat16) STORED(X, float16) STORED(X, float32) \
    X(cross_entropy, "flFD") X(cross_entropy_backward, "fldF") X(adam, "fFFF?F") X(cartpole, "dlDU") \
    X(chain, "uf?f?f?f?f?f?f?f?fF?F?F?F") \
    X(attention, "vvv?vF?F") X(attend_token, "fff?f?fFFF") X(gated, "fF") X(added, "fF")

typedef struct {
    const char *name, *buffers;
    Kernel kernel;
} Entry;

typedef struct {
    const char *name;
    int lanes;   /* floats in a vector */
    int panel;   /* output channels in a packed panel of `conv` */
    int (*usable)(void);
    const Entry *entries; /* ends with a NULL name */
} Isa;

extern const Isa ISAS[]; /* best first; ends with a NULL name */

#endif
