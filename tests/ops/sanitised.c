// Calls every function of the C kernels on maps that end where their memory ends, for the sanitizers to watch.
// Built and run by test_sanitised.py: SOURCES is the folder of the kernels.

#include "tail.c"

#include <stdio.h>

static uint64_t state = 1;

static double draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(state >> 32) / 2147483648.0;
}

// Room for `count` elements and none more, `offset` elements into what was allocated: pointers need not be aligned to
// more than an element. *whole is to be freed.
static void *room(int64_t count, size_t size, int64_t offset, void **whole)
{
    *whole = malloc((count + offset) * size + (count + offset == 0));
    return (char *)*whole + offset * size;
}

enum { MOST = 96 };
static void *allocated[MOST];
static int used;

static float *floats(int64_t count, int64_t offset)
{
    float *x = room(count, sizeof *x, offset, &allocated[used++]);
    for (int64_t k = 0; k < count; k++)
        x[k] = (float)draw();
    return x;
}

static double *doubles(int64_t count, int64_t offset)
{
    double *x = room(count, sizeof *x, offset, &allocated[used++]);
    for (int64_t k = 0; k < count; k++)
        x[k] = draw();
    return x;
}

static uint16_t *halves(int64_t count, int64_t offset)
{
    uint16_t *x = room(count, sizeof *x, offset, &allocated[used++]);
    for (int64_t k = 0; k < count; k++)
        x[k] = to_bfloat16((float)draw());
    return x;
}

static void release(void)
{
    while (used)
        free(allocated[--used]);
}

#define TRY(kind, T, maps, S, numbers)                                                                                \
    static int try_##kind(int64_t n, int64_t c, int64_t p, int last, int threads, int64_t o, int with)                \
    {                                                                                                                 \
        int project = with & 1, batch = with >> 1 & 1, wide = with >> 2 & 1, weighted = with >> 3 & 1;                \
        int rectified = with >> 4 & 1, shortcut = with >> 5 & 1, failed = 0;                                          \
        T *z = maps(n * c * p, o), *r = shortcut ? maps(n * c * p, o) : 0, *out = maps(n * c * p, o);                 \
        T *grad = maps(n * c * p, o), *g = rectified ? maps(n * c * p, o) : 0, *dz = maps(n * c * p, o);              \
        S *basis = project ? numbers(c * p, o) : 0, *mean = numbers(n * c, o), *variance = numbers(n * c, o);         \
        S *projection = project ? numbers(n * c, o) : 0, *w = weighted ? numbers(n * c, o) : 0;                       \
        S *first = project ? 0 : numbers(n * c, o), *second = project ? 0 : numbers(n * c, o);                        \
        S *projected = project ? numbers(n * c, o) : 0;                                                               \
        double *total = project ? doubles(c, o) : 0, *mu = doubles(c, o), *inverse = doubles(c, o);                   \
        double *scale = doubles(c, o), *bias = doubles(c, o);                                                         \
        void *gamma = wide ? (void *)doubles(c, o) : floats(c, o), *beta = wide ? (void *)doubles(c, o) : floats(c, o); \
        void *running = wide ? (void *)doubles(c, o) : floats(c, o), *moving = wide ? (void *)doubles(c, o) : floats(c, o); \
        for (int64_t k = 0; k < c; k++)                                                                               \
            put(moving, wide, k, 1);                                                                                  \
        failed |= normalise_##kind(z, basis, total, gamma, beta, running, moving, wide, n * p > 1 ? 0.1 : 0, 1e-5,    \
                                   batch, mean, variance, projection, mu, inverse, scale, bias, first, second,       \
                                   projected, n, c, p, last, threads);                                                \
        failed |= affine_##kind(z, scale, bias, mu, w, r, out, rectified ? 0 : NAN, with & 1 ? 6 : NAN, n, c, p,      \
                                last, threads);                                                                       \
        S *sums = numbers(2 * n * c, o), *a = numbers(n * c, o), *for_w = weighted ? numbers(n * c, o) : 0;           \
        double *for_scale = doubles(c, o), *for_bias = doubles(c, o), *for_mu = doubles(c, o);                        \
        failed |= affine_backward_##kind(grad, rectified ? out : 0, z, scale, bias, mu, w, NAN, g, sums, a, for_scale, \
                                         for_bias, for_mu, for_w, n, c, p, last, threads);                            \
        S *space = numbers((project ? 3 : 2) * n * c, o), *by = numbers(n * c, o);                                    \
        void *for_gamma = wide ? (void *)doubles(c, o) : floats(c, o);                                                \
        void *for_beta = wide ? (void *)doubles(c, o) : floats(c, o);                                                 \
        failed |= normalise_backward_##kind(g ? g : grad, z, a, basis, total, mean, variance, projection, scale, mu,  \
                                            inverse, for_scale, for_bias, for_mu, project ? 0 : by,                   \
                                            project ? 0 : by, project ? by : 0, batch, wide, for_gamma, for_beta,     \
                                            space, dz, n, c, p, last, threads);                                       \
        int64_t size = 1 + 2 * (with % 5);                                                                            \
        S *kernel = numbers(size, o), *kept = numbers((batch ? 4 : 3) * n * c, o);                                    \
        double *norm = doubles(4 * c, o), *for_kernel = doubles(size, o);                                             \
        failed |= tail_##kind(z, kernel, size, gamma, beta, running, moving, wide, n * p > 1 ? 0.1 : 0, 1e-5, batch,  \
                              kept, norm, r, out, rectified ? 0 : NAN, NAN, n, c, p, last, threads);                  \
        failed |= tail_backward_##kind(grad, rectified ? out : 0, z, kernel, size, kept, norm, batch, wide, NAN, g,   \
                                       numbers(7 * n * c + size, o), doubles(3 * c, o), for_kernel, for_gamma,        \
                                       for_beta, dz, n, c, p, last, threads);                                         \
        release();                                                                                                    \
        return failed;                                                                                                \
    }

TRY(float, float, floats, float, floats)
TRY(double, double, doubles, double, doubles)
TRY(bfloat16, uint16_t, halves, float, floats)

static void try_correlations(int64_t n, int64_t c, int64_t size, int threads, int64_t o)
{
    correlate_float(floats(n * c, o), floats(size, o), floats(n * c, o), n, c, size, threads);
    correlate_kernel_float(floats(n * c, o), floats(n * c, o), doubles(size, o), n, c, size, threads);
    correlate_double(doubles(n * c, o), doubles(size, o), doubles(n * c, o), n, c, size, threads);
    correlate_kernel_double(doubles(n * c, o), doubles(n * c, o), doubles(size, o), n, c, size, threads);
    release();
}

int main(void)
{
    static const int64_t samples[] = {1, 2, 5}, channels[] = {1, 3, 31, 33, 64, 65, 130};
    static const int64_t positions[] = {1, 2, 7, 8, 9, 63, 65, 1025}, sizes[] = {1, 3, 9, 65};
    static const int counts[] = {1, 2, 3, 7};
    long calls = 0, failed = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 7; j++)
            for (int t = 0; t < 4; t++) {
                int64_t n = samples[i], c = channels[j];
                for (int k = 0; k < 8; k++)
                    for (int last = 0; last < 2; last++)
                        for (int some = 0; some < 3; some++, calls += 3) {
                            int64_t p = positions[k], offset = (calls / 3) % 4;
                            int with = (int)(calls / 3 * 37 % 64);
                            failed += try_float(n, c, p, last, counts[t], offset, with);
                            failed += try_double(n, c, p, last, counts[t], offset, with);
                            failed += try_bfloat16(n, c, p, last, counts[t], offset, with);
                        }
                for (int k = 0; k < 4; k++, calls++)
                    try_correlations(n, c, sizes[k], counts[t], k);
            }
    printf("%ld calls, %ld without memory\n", calls, failed);
    return failed != 0;
}
