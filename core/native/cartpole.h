/* One step of many poles on carts (rl/environments/cartpole.py), in double precision as there. */

/* Sine and cosine by their series, which are exact to the last bits up to 0.8. */
INLINE double FN(small_sine)(double x) {
    double y = x * x;
    return x * (1 - y * (1.0 / 6) * (1 - y * (1.0 / 20) * (1 - y * (1.0 / 42)
        * (1 - y * (1.0 / 72) * (1 - y * (1.0 / 110) * (1 - y * (1.0 / 156)
        * (1 - y * (1.0 / 210) * (1 - y * (1.0 / 272)))))))));
}

INLINE double FN(small_cosine)(double x) {
    double y = x * x;
    return 1 - y * 0.5 * (1 - y * (1.0 / 12) * (1 - y * (1.0 / 30)
        * (1 - y * (1.0 / 56) * (1 - y * (1.0 / 90) * (1 - y * (1.0 / 132)
        * (1 - y * (1.0 / 182) * (1 - y * (1.0 / 240) * (1 - y * (1.0 / 306)))))))));
}

/* state (4, N), actions (N): 0 is left -> new state (4, N), ended (N). ints: N; items are poles.
   The constants are those of the environment's file, which a test compares. */
KERNEL(cartpole) {
    const double total = 1.0 + 0.1, share = 0.1 * 0.5 / total, seconds = 0.02;
    const double angle_limit = 12 * 3.14159265358979323846 / 180;
    enum { BLOCK = 64 };
    int64_t n = a->n[0];
    const double *s = a->p[0];
    const int64_t *actions = a->p[1];
    double *next = a->p[2], sine[BLOCK], cosine[BLOCK];
    uint32_t *ended = a->p[3];
    for (int64_t start = begin; start < end; start += BLOCK) {
        int64_t size = end - start < BLOCK ? end - start : BLOCK;
        const double *angles = s + 2 * n + start;
        int small = 1;
        for (int64_t i = 0; i < size; i++) small &= fabs(angles[i]) <= 0.8;
        if (small) {
            SIMD for (int64_t i = 0; i < size; i++) {
                sine[i] = FN(small_sine)(angles[i]);
                cosine[i] = FN(small_cosine)(angles[i]);
            }
        } else {
            for (int64_t i = 0; i < size; i++) {
                sine[i] = sin(angles[i]);
                cosine[i] = cos(angles[i]);
            }
        }
        SIMD for (int64_t i = 0; i < size; i++) {
            int64_t k = start + i;
            double x = s[k], velocity = s[n + k], angle = s[2 * n + k], spin = s[3 * n + k];
            double push = spin * spin * sine[i] * share + (actions[k] ? 10.0 : -10.0) / total;
            /* Angular acceleration, with the inertia of a rod about its end. */
            double turn = (9.8 * sine[i] - cosine[i] * push)
                / (0.5 * 4.0 / 3.0 - 0.5 * 0.1 / total * cosine[i] * cosine[i]);
            push -= cosine[i] * turn * share; /* acceleration of the cart */
            x += seconds * velocity;
            angle += seconds * spin;
            next[k] = x;
            next[n + k] = velocity + seconds * push;
            next[2 * n + k] = angle;
            next[3 * n + k] = spin + seconds * turn;
            ended[k] = (fabs(x) > 2.4) | (fabs(angle) > angle_limit);
        }
    }
}
