// The passes of the fused tail over a map of type T, included once per type by tail.c.
//
// T: how the map is stored; S: how it is worked on, and the numbers `[n c]`; LOAD, STORE: between the two.
// A map has n samples, c channels and p positions: `[n c p]`, or `[n p c]` where `last` is set.
// Numbers `[n c]` lie as they read; numbers `[c]` are doubles. A pointer that may be NULL says so.
// Each number is summed by one thread in an order of its own, so the results do not depend on the threads.
// Every function returns 0, or 1 where memory is short.

// mean and, where not NULL, biased variance and projection (sum of basis * z) over space; basis `[c p]` laid out as z.
int NAME(moments)(const T *z, const S *basis, S *mean, S *variance, S *projection, int64_t n, int64_t c, int64_t p,
                  int last, int threads)
{
    int failed = 0;
    if (!last) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t row = 0; row < n * c; row++) {
            const T *x = z + row * p;
            double sum = 0, squares = 0, rest = 0, projected = 0;
            for (int64_t from = 0; from < p; from += RUN) {
                int64_t to = SMALLER(from + RUN, p);
                S part = 0;
#pragma omp simd reduction(+ : part)
                for (int64_t k = from; k < to; k++)
                    part += LOAD(x[k]);
                sum += part;
            }
            mean[row] = (S)(sum / p);
            // The row is in the cache by now: the second reading is nearly free, and around the mean nothing cancels.
            for (int64_t from = 0; variance && from < p; from += RUN) {
                int64_t to = SMALLER(from + RUN, p);
                S centre = mean[row], part = 0, square = 0;
#pragma omp simd reduction(+ : part, square)
                for (int64_t k = from; k < to; k++) {
                    S off = LOAD(x[k]) - centre;
                    part += off;
                    square += off * off;
                }
                rest += part;
                squares += square;
            }
            if (variance)
                variance[row] = (S)LARGER(0.0, (squares - rest * rest / p) / p);
            for (int64_t from = 0; basis && from < p; from += RUN) {
                int64_t to = SMALLER(from + RUN, p);
                const S *weight = basis + row % c * p;
                S part = 0;
#pragma omp simd reduction(+ : part)
                for (int64_t k = from; k < to; k++)
                    part += LOAD(x[k]) * weight[k];
                projected += part;
            }
            if (basis)
                projection[row] = (S)projected;
        }
        return 0;
    }
    struct split cut = split_channels(n, c, threads);
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed)
    for (int64_t task = 0; task < n * cut.blocks; task++) {
        int64_t sample = task / cut.blocks, first = task % cut.blocks * cut.width;
        int64_t width = SMALLER(cut.width, c - first), at = sample * c + first;
        if (width <= 0)
            continue;
        double *totals = calloc(3 * width, sizeof(double));
        S *sums = malloc(4 * width * sizeof(S));
        if (!totals || !sums) {
            failed = 1;
        } else {
            S *restrict shift = sums, *restrict one = sums + width, *restrict two = one + width;
            S *restrict three = two + width;
            const T *x = z + sample * p * c + first;
            // Sums of squares around the mean of the first rows do not cancel.
            int64_t rows = SMALLER(p, 8);
            S part = (S)1 / rows;
            memset(shift, 0, width * sizeof(S));
            for (int64_t row = 0; row < rows; row++) {
#pragma omp simd
                for (int64_t k = 0; k < width; k++)
                    shift[k] += LOAD(x[row * c + k]) * part;
            }
            for (int64_t from = 0; from < p; from += ROWS) {
                int64_t to = SMALLER(from + ROWS, p), row = from;
                memset(one, 0, 3 * width * sizeof(S));
                for (; row + 4 <= to; row += 4) {
                    const T *restrict x0 = x + row * c, *restrict x1 = x0 + c;
                    const T *restrict x2 = x1 + c, *restrict x3 = x2 + c;
                    if (variance) {
#pragma omp simd
                        for (int64_t k = 0; k < width; k++) {
                            S d0 = LOAD(x0[k]) - shift[k], d1 = LOAD(x1[k]) - shift[k];
                            S d2 = LOAD(x2[k]) - shift[k], d3 = LOAD(x3[k]) - shift[k];
                            one[k] += (d0 + d1) + (d2 + d3);
                            two[k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
                        }
                    } else {
#pragma omp simd
                        for (int64_t k = 0; k < width; k++)
                            one[k] += ((LOAD(x0[k]) - shift[k]) + (LOAD(x1[k]) - shift[k])) +
                                      ((LOAD(x2[k]) - shift[k]) + (LOAD(x3[k]) - shift[k]));
                    }
                }
                for (; row < to; row++) {
#pragma omp simd
                    for (int64_t k = 0; k < width; k++) {
                        S d = LOAD(x[row * c + k]) - shift[k];
                        one[k] += d;
                        two[k] += d * d;
                    }
                }
                for (row = from; basis && row < to; row++) {
                    const S *weight = basis + row * c + first;
#pragma omp simd
                    for (int64_t k = 0; k < width; k++)
                        three[k] += LOAD(x[row * c + k]) * weight[k];
                }
#pragma omp simd
                for (int64_t k = 0; k < width; k++) {
                    totals[k] += one[k];
                    totals[width + k] += two[k];
                    totals[2 * width + k] += three[k];
                }
            }
            double share = 1.0 / p;
#pragma omp simd
            for (int64_t k = 0; k < width; k++)
                mean[at + k] = (S)(shift[k] + totals[k] * share);
            if (variance) {
#pragma omp simd
                for (int64_t k = 0; k < width; k++) {
                    double off = totals[k] * share;
                    variance[at + k] = (S)LARGER(0.0, totals[width + k] * share - off * off);
                }
            }
            for (int64_t k = 0; basis && k < width; k++)
                projection[at + k] = (S)totals[2 * width + k];
        }
        free(totals);
        free(sums);
    }
    return failed;
}

// out = w (scale (z - mu) + bias) + shortcut, kept between low and high; w `[n c]` and shortcut may be NULL (1 and 0).
// A bound that is NaN is none, for nothing is beyond it; so a NaN in the map stays one, as in torch.
int NAME(affine)(const T *z, const double *scale, const double *bias, const double *mu, const S *w, const T *shortcut,
                 T *out, double lowest, double highest, int64_t n, int64_t c, int64_t p, int last, int threads)
{
    S low = (S)lowest, high = (S)highest;
    int failed = 0;
    if (!last) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t row = 0; row < n * c; row++) {
            double factor = w ? w[row] : 1.0, wide = scale[row % c] * factor;
            S a = (S)wide, b = (S)(bias[row % c] * factor - mu[row % c] * wide);
            const T *restrict x = z + row * p, *restrict r = shortcut ? shortcut + row * p : 0;
            T *restrict y = out + row * p;
            if (shortcut) {
#pragma omp simd
                for (int64_t k = 0; k < p; k++) {
                    S v = a * LOAD(x[k]) + b + LOAD(r[k]);
                    y[k] = STORE(v < low ? low : v > high ? high : v);
                }
            } else {
#pragma omp simd
                for (int64_t k = 0; k < p; k++) {
                    S v = a * LOAD(x[k]) + b;
                    y[k] = STORE(v < low ? low : v > high ? high : v);
                }
            }
        }
        return 0;
    }
    int64_t pieces = n >= threads ? 1 : (threads + n - 1) / n, rows = (p + pieces - 1) / pieces;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed)
    for (int64_t task = 0; task < n * pieces; task++) {
        int64_t sample = task / pieces, from = task % pieces * rows, to = SMALLER(from + rows, p);
        S *a = malloc(2 * c * sizeof(S)), *b = a + c;
        if (!a) {
            failed = 1;
            continue;
        }
        for (int64_t k = 0; k < c; k++) {
            double factor = w ? w[sample * c + k] : 1.0, wide = scale[k] * factor;
            a[k] = (S)wide;
            b[k] = (S)(bias[k] * factor - mu[k] * wide);
        }
        for (int64_t row = from; row < to; row++) {
            int64_t at = (sample * p + row) * c;
            const T *restrict x = z + at, *restrict r = shortcut ? shortcut + at : 0;
            T *restrict y = out + at;
            if (shortcut) {
#pragma omp simd
                for (int64_t k = 0; k < c; k++) {
                    S v = a[k] * LOAD(x[k]) + b[k] + LOAD(r[k]);
                    y[k] = STORE(v < low ? low : v > high ? high : v);
                }
            } else {
#pragma omp simd
                for (int64_t k = 0; k < c; k++) {
                    S v = a[k] * LOAD(x[k]) + b[k];
                    y[k] = STORE(v < low ? low : v > high ? high : v);
                }
            }
        }
        free(a);
    }
    return failed;
}

// g = grad where 0 < out < highest (NaN: no bound), and the sums of g and of g (z - mu) over space; out and g are NULL
// together: then g = grad.
static int NAME(grad_sums)(const T *grad, const T *out, const T *z, const double *mu, double highest, T *g, S *sum_g,
                           S *sum_gz, int64_t n, int64_t c, int64_t p, int last, int threads)
{
    S high = (S)highest;
    int failed = 0;
    if (!last) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t row = 0; row < n * c; row++) {
            const T *restrict d = grad + row * p, *restrict x = z + row * p, *restrict y = out ? out + row * p : 0;
            T *restrict to_g = g ? g + row * p : 0;
            S centre = (S)mu[row % c];
            double one = 0, two = 0;
            for (int64_t from = 0; from < p; from += RUN) {
                int64_t to = SMALLER(from + RUN, p);
                S part = 0, product = 0;
                if (out) {
#pragma omp simd reduction(+ : part, product)
                    for (int64_t k = from; k < to; k++) {
                        S at_y = LOAD(y[k]), v = at_y <= 0 || at_y >= high ? 0 : LOAD(d[k]);
                        to_g[k] = STORE(v);
                        part += v;
                        product += v * (LOAD(x[k]) - centre);
                    }
                } else {
#pragma omp simd reduction(+ : part, product)
                    for (int64_t k = from; k < to; k++) {
                        S v = LOAD(d[k]);
                        part += v;
                        product += v * (LOAD(x[k]) - centre);
                    }
                }
                one += part;
                two += product;
            }
            sum_g[row] = (S)one;
            sum_gz[row] = (S)two;
        }
        return 0;
    }
    struct split cut = split_channels(n, c, threads);
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed)
    for (int64_t task = 0; task < n * cut.blocks; task++) {
        int64_t sample = task / cut.blocks, first = task % cut.blocks * cut.width;
        int64_t width = SMALLER(cut.width, c - first), base = sample * p * c + first;
        if (width <= 0)
            continue;
        double *totals = calloc(2 * width, sizeof(double));
        S *sums = malloc(3 * width * sizeof(S));
        if (!totals || !sums) {
            failed = 1;
        } else {
            S *restrict centre = sums, *restrict one = sums + width, *restrict two = one + width;
            for (int64_t k = 0; k < width; k++)
                centre[k] = (S)mu[first + k];
            for (int64_t from = 0; from < p; from += ROWS) {
                int64_t to = SMALLER(from + ROWS, p), row = from;
                memset(one, 0, 2 * width * sizeof(S));
                // One row at a time: four maps are read and written here, more streams than that defeat the prefetcher.
                for (; row < to; row++) {
                    const T *restrict d = grad + base + row * c, *restrict x = z + base + row * c;
                    if (out) {
                        const T *restrict y = out + base + row * c;
                        T *restrict to_g = g + base + row * c;
#pragma omp simd
                        for (int64_t k = 0; k < width; k++) {
                            S at_y = LOAD(y[k]), v = at_y <= 0 || at_y >= high ? 0 : LOAD(d[k]);
                            to_g[k] = STORE(v);
                            one[k] += v;
                            two[k] += v * (LOAD(x[k]) - centre[k]);
                        }
                    } else {
#pragma omp simd
                        for (int64_t k = 0; k < width; k++) {
                            S v = LOAD(d[k]);
                            one[k] += v;
                            two[k] += v * (LOAD(x[k]) - centre[k]);
                        }
                    }
                }
#pragma omp simd
                for (int64_t k = 0; k < width; k++) {
                    totals[k] += one[k];
                    totals[width + k] += two[k];
                }
            }
            for (int64_t k = 0; k < width; k++) {
                sum_g[sample * c + first + k] = (S)totals[k];
                sum_gz[sample * c + first + k] = (S)totals[width + k];
            }
        }
        free(totals);
        free(sums);
    }
    return failed;
}

// dz = a g + q (z - mu) + e + d basis; a, q, e `[n c]`; d `[n c]` and basis `[c p]` are NULL together, then q may be
// NULL too (0: z is not read).
static int NAME(grad_input)(const T *g, const T *z, const S *a, const S *q, const S *e, const S *d, const double *mu,
                            const S *basis, T *dz, int64_t n, int64_t c, int64_t p, int last, int threads)
{
    int failed = 0;
    if (!last) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t row = 0; row < n * c; row++) {
            const T *restrict u = g + row * p, *restrict x = z + row * p;
            T *restrict to = dz + row * p;
            S a_ = a[row], q_ = q ? q[row] : 0, e_ = e[row], centre = (S)mu[row % c];
            if (!q) {
#pragma omp simd
                for (int64_t k = 0; k < p; k++)
                    to[k] = STORE(a_ * LOAD(u[k]) + e_);
            } else if (basis) {
                const S *restrict weight = basis + row % c * p;
                S d_ = d[row];
#pragma omp simd
                for (int64_t k = 0; k < p; k++)
                    to[k] = STORE(a_ * LOAD(u[k]) + q_ * (LOAD(x[k]) - centre) + e_ + d_ * weight[k]);
            } else {
#pragma omp simd
                for (int64_t k = 0; k < p; k++)
                    to[k] = STORE(a_ * LOAD(u[k]) + q_ * (LOAD(x[k]) - centre) + e_);
            }
        }
        return 0;
    }
    int64_t pieces = n >= threads ? 1 : (threads + n - 1) / n, rows = (p + pieces - 1) / pieces;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed)
    for (int64_t task = 0; task < n * pieces; task++) {
        int64_t sample = task / pieces, from = task % pieces * rows, upto = SMALLER(from + rows, p);
        const S *restrict a_ = a + sample * c, *restrict e_ = e + sample * c;
        const S *restrict q_ = q ? q + sample * c : 0;
        S *restrict centre = malloc(c * sizeof(S));
        if (!centre) {
            failed = 1;
            continue;
        }
        for (int64_t k = 0; k < c; k++)
            centre[k] = (S)mu[k];
        for (int64_t row = from; row < upto; row++) {
            int64_t at = (sample * p + row) * c;
            const T *restrict u = g + at, *restrict x = z + at;
            T *restrict to = dz + at;
            if (!q) {
#pragma omp simd
                for (int64_t k = 0; k < c; k++)
                    to[k] = STORE(a_[k] * LOAD(u[k]) + e_[k]);
            } else if (basis) {
                const S *restrict weight = basis + row * c, *restrict d_ = d + sample * c;
#pragma omp simd
                for (int64_t k = 0; k < c; k++)
                    to[k] = STORE(a_[k] * LOAD(u[k]) + q_[k] * (LOAD(x[k]) - centre[k]) + e_[k] + d_[k] * weight[k]);
            } else {
#pragma omp simd
                for (int64_t k = 0; k < c; k++)
                    to[k] = STORE(a_[k] * LOAD(u[k]) + q_[k] * (LOAD(x[k]) - centre[k]) + e_[k]);
            }
        }
        free(centre);
    }
    return failed;
}

// The first half of the tail: the moments that are asked for (mean not NULL), and what follows from them.
int NAME(normalise)(const T *z, const S *basis, const double *total, const void *gamma, const void *beta,
                    void *running_mean, void *running_var, int wide, double momentum, double eps, int batch, S *mean,
                    S *variance, S *projection, double *mu, double *inverse, double *scale, double *bias, S *first,
                    S *second, S *projected, int64_t n, int64_t c, int64_t p, int last, int threads)
{
    if (mean && NAME(moments)(z, basis, mean, variance, projection, n, c, p, last, threads))
        return 1;
    NUMBERS(standard)(mean, variance, projection, total, gamma, beta, running_mean, running_var, wide, momentum, eps,
                      batch, mu, inverse, scale, bias, first, second, projected, n, c, p, threads);
    return 0;
}

// Backward through `affine`: g as in `grad_sums`, a = w scale, and the gradients of scale, bias, mu and w (or NULL).
int NAME(affine_backward)(const T *grad, const T *out, const T *z, const double *scale, const double *bias,
                          const double *mu, const S *w, double highest, T *g, S *sums, S *a, double *for_scale,
                          double *for_bias, double *for_mu, S *for_w, int64_t n, int64_t c, int64_t p, int last,
                          int threads)
{
    S *sum_g = sums, *sum_gz = sums + n * c;
    if (NAME(grad_sums)(grad, out, z, mu, highest, g, sum_g, sum_gz, n, c, p, last, threads))
        return 1;
    NUMBERS(share)(sum_g, sum_gz, scale, bias, w, a, for_scale, for_bias, for_mu, for_w, n, c, threads);
    return 0;
}

// Backward through `normalise`: the gradient of z with that of the map itself, a g. room: two times `[n c]`, three with
// by_projection.
int NAME(normalise_backward)(const T *g, const T *z, const S *a, const S *basis, const double *total, const S *mean,
                             const S *variance, const S *projection, const double *scale, const double *mu,
                             const double *inverse, const double *by_scale, const double *by_bias,
                             const double *by_mu, const S *by_first, const S *by_second, const S *by_projection,
                             int batch, int wide, void *for_gamma, void *for_beta, S *room, T *dz, int64_t n, int64_t c,
                             int64_t p, int last, int threads)
{
    S *q = room, *e = room + n * c, *d = by_projection ? room + 2 * n * c : 0;
    NUMBERS(differentiate)(mean, variance, projection, total, scale, mu, inverse, by_scale, by_bias, by_mu,
                           by_first, by_second, by_projection, batch, wide, for_gamma, for_beta, q, e, d, n, c, p,
                           threads);
    const S *with_q = batch || by_second || d ? q : 0;
    return NAME(grad_input)(g, z, a, with_q, e, d, mu, d ? basis : 0, dz, n, c, p, last, threads);
}

// The whole tail with the gate of ECA between the passes, w = sigmoid(correlation of the means with a kernel), forward.
// room: `[4 n c]`, three with a norm in eval mode: mean of z, mean of the normalised map as it is stored, w, variance.
// norm: `[4 c]`: mu, inverse, scale, bias. The rest is as in `normalise` and `affine`.
int NAME(tail)(const T *z, const S *kernel, int64_t size, const void *gamma, const void *beta, void *running_mean,
               void *running_var, int wide, double momentum, double eps, int batch, S *room, double *norm,
               const T *shortcut, T *out, double lowest, double highest, int64_t n, int64_t c, int64_t p, int last,
               int threads)
{
    S *mean = room, *first = room + n * c, *w = room + 2 * n * c, *variance = batch ? room + 3 * n * c : 0;
    double *mu = norm, *inverse = norm + c, *scale = norm + 2 * c, *bias = norm + 3 * c;
    if (NAME(normalise)(z, 0, 0, gamma, beta, running_mean, running_var, wide, momentum, eps, batch, mean, variance, 0,
                        mu, inverse, scale, bias, first, 0, 0, n, c, p, last, threads))
        return 1;
    for (int64_t k = 0; k < n * c; k++)
        first[k] = LOAD(STORE(first[k]));
    NUMBERS(correlate)(first, kernel, w, n, c, size, threads);
    NUMBERS(logistic)(w, n * c, threads);
    return NAME(affine)(z, scale, bias, mu, w, shortcut, out, lowest, highest, n, c, p, last, threads);
}

// Backward through `tail`: g (NULL where out is) and the gradients of kernel `[size]`, gamma, beta and z. room, norm: as
// `tail` left them; work: `[7 n c + size]`; by_norm: `[3 c]`. The rest is as in `affine_backward` and `normalise_backward`.
int NAME(tail_backward)(const T *grad, const T *out, const T *z, const S *kernel, int64_t size, const S *room,
                        const double *norm, int batch, int wide, double highest, T *g, S *work, double *by_norm,
                        double *for_kernel, void *for_gamma, void *for_beta, T *dz, int64_t n, int64_t c, int64_t p,
                        int last, int threads)
{
    int64_t count = n * c;
    const S *mean = room, *first = room + count, *w = room + 2 * count;
    const double *mu = norm, *inverse = norm + c, *scale = norm + 2 * c, *bias = norm + 3 * c;
    S *sums = work, *a = work + 2 * count, *by = work + 3 * count, *by_first = work + 4 * count;
    S *space = work + 5 * count, *turned = work + 7 * count;
    if (NAME(affine_backward)(grad, out, z, scale, bias, mu, w, highest, g, sums, a, by_norm, by_norm + c,
                              by_norm + 2 * c, by, n, c, p, last, threads))
        return 1;
    for (int64_t k = 0; k < count; k++)
        by[k] *= w[k] * (1 - w[k]);
    for (int64_t k = 0; k < size; k++)
        turned[k] = kernel[size - 1 - k];
    NUMBERS(correlate_kernel)(first, by, for_kernel, n, c, size, threads);
    NUMBERS(correlate)(by, turned, by_first, n, c, size, threads);
    for (int64_t k = 0; k < count; k++)
        by_first[k] = LOAD(STORE(by_first[k]));
    return NAME(normalise_backward)(g ? g : grad, z, a, 0, 0, mean, 0, 0, scale, mu, inverse, by_norm, by_norm + c,
                                    by_norm + 2 * c, by_first, 0, 0, batch, wide, for_gamma, for_beta, space, dz, n, c,
                                    p, last, threads);
}
