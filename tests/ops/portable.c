// Runs the C kernels on a few maps and prints sums of what they wrote, to be compared between compilers and machines.
// Built and run by test_portable.py.

#include "tail.c"

#include <stdio.h>

static uint32_t state = 1;

static double draw(void)
{
    state = state * 1664525u + 1013904223u;
    return (double)(state >> 8) / (1 << 24) - 0.3;
}

#define FILL(x, count, convert)                                                                                       \
    for (int64_t k = 0; k < (count); k++)                                                                             \
    x[k] = convert(draw())
#define PRINT(x, count, load)                                                                                         \
    do {                                                                                                              \
        double sum = 0, weighted = 0;                                                                                 \
        for (int64_t k = 0; k < (count); k++) {                                                                       \
            sum += load(x[k]);                                                                                        \
            weighted += (k % 7 - 3.0) * load(x[k]);                                                                   \
        }                                                                                                             \
        printf("%.9g %.9g\n", sum, weighted);                                                                         \
    } while (0)
#define SAME(x) (x)

enum { N = 3, C = 37, P = 45 };

#define RUN_ALL(kind, T, S, load, store)                                                                              \
    static int run_##kind(int last, int threads)                                                                      \
    {                                                                                                                 \
        static T z[N * C * P], r[N * C * P], out[N * C * P], grad[N * C * P], g[N * C * P], dz[N * C * P];            \
        static S mean[N * C], variance[N * C], first[N * C], second[N * C], w[N * C], sums[2 * N * C], a[N * C];      \
        static S for_w[N * C], room[2 * N * C];                                                                       \
        static float gamma[C], beta[C], running[C], moving[C], for_gamma[C], for_beta[C];                             \
        static double mu[C], inverse[C], scale[C], bias[C], for_scale[C], for_bias[C], for_mu[C];                     \
        int failed = 0;                                                                                               \
        FILL(z, N * C * P, store);                                                                                    \
        FILL(r, N * C * P, store);                                                                                    \
        FILL(grad, N * C * P, store);                                                                                 \
        FILL(w, N * C, (S));                                                                                          \
        FILL(gamma, C, (float));                                                                                      \
        FILL(beta, C, (float));                                                                                       \
        FILL(running, C, (float));                                                                                    \
        for (int k = 0; k < C; k++)                                                                                   \
            moving[k] = 1;                                                                                            \
        failed |= normalise_##kind(z, 0, 0, gamma, beta, running, moving, 0, 0.1, 1e-5, 1, mean, variance, 0, mu,     \
                                   inverse, scale, bias, first, second, 0, N, C, P, last, threads);                   \
        failed |= affine_##kind(z, scale, bias, mu, w, r, out, 0, NAN, N, C, P, last, threads);                       \
        failed |= affine_backward_##kind(grad, out, z, scale, bias, mu, w, NAN, g, sums, a, for_scale, for_bias,      \
                                         for_mu, for_w, N, C, P, last, threads);                                      \
        failed |= normalise_backward_##kind(g, z, a, 0, 0, mean, variance, 0, scale, mu, inverse, for_scale,          \
                                            for_bias, for_mu, sums, for_w, 0, 1, 0, for_gamma, for_beta, room, dz,    \
                                            N, C, P, last, threads);                                                  \
        PRINT(mean, N * C, SAME);                                                                                     \
        PRINT(variance, N * C, SAME);                                                                                 \
        PRINT(moving, C, SAME);                                                                                       \
        PRINT(first, N * C, SAME);                                                                                    \
        PRINT(second, N * C, SAME);                                                                                   \
        PRINT(out, N * C * P, load);                                                                                  \
        PRINT(for_w, N * C, SAME);                                                                                    \
        PRINT(for_gamma, C, SAME);                                                                                    \
        PRINT(for_beta, C, SAME);                                                                                     \
        PRINT(dz, N * C * P, load);                                                                                   \
        return failed;                                                                                                \
    }

RUN_ALL(float, float, float, SAME, (float))
RUN_ALL(double, double, double, SAME, SAME)
RUN_ALL(bfloat16, uint16_t, float, from_bfloat16, to_bfloat16)

int main(void)
{
    int failed = 0;
    for (int last = 0; last < 2; last++)
        for (int threads = 1; threads < 4; threads += 2)
            failed |= run_float(last, threads) | run_double(last, threads) | run_bfloat16(last, threads);
    return failed;
}
