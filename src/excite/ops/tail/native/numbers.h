// What lies between the passes, on numbers `[n c]` of type S and `[c]` in double; see standardise.py for the equations.
// Included once per type S by tail.c. n, c: samples, channels; p: positions; a pointer that may be NULL says so.
// Work is split over the channels, each of which is summed over the samples by one thread.

// Numbers per channel, and what they make of the moments. With `batch` mu and var are the batch's, and the running ones
// move by `momentum` towards them (0: not at all); else mu and var are the running ones. gamma, beta and the running
// numbers are doubles where `wide`, else floats; gamma and beta may be NULL (1 and 0), running ones with `batch` and no
// momentum. Descriptions of the normalised map are written where first, second, projected are not NULL; moments that
// nothing asks for may be NULL, total `[c]` is the sum of the basis.
static void NAME(standard)(const S *mean, const S *variance, const S *projection, const double *total,
                           const void *gamma, const void *beta, void *running_mean, void *running_var, int wide,
                           double momentum, double eps, int batch, double *mu, double *inverse, double *scale,
                           double *bias, S *first, S *second, S *projected, int64_t n, int64_t c,
                           int64_t p, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (n * c > SERIAL)
    for (int64_t from = 0; from < c; from += CHANNELS) {
        int64_t to = SMALLER(from + CHANNELS, c);
        double *var = inverse; // until the last line that needs it
        for (int64_t k = from; k < to; k++) {
            mu[k] = batch ? 0 : number(running_mean, wide, k);
            var[k] = batch ? 0 : number(running_var, wide, k);
        }
        if (batch) {
            for (int64_t i = 0; i < n; i++)
#pragma omp simd
                for (int64_t k = from; k < to; k++)
                    mu[k] += mean[i * c + k];
            for (int64_t k = from; k < to; k++)
                mu[k] /= n;
            for (int64_t i = 0; i < n; i++)
#pragma omp simd
                for (int64_t k = from; k < to; k++) {
                    double off = mean[i * c + k] - mu[k];
                    var[k] += variance[i * c + k] + off * off;
                }
            for (int64_t k = from; k < to; k++)
                var[k] /= n;
        }
        for (int64_t k = from; batch && momentum != 0 && k < to; k++) {
            double elements = (double)n * p;
            approach(running_mean, wide, k, mu[k], momentum);
            approach(running_var, wide, k, var[k] * (elements / (elements - 1)), momentum);
        }
#pragma omp simd
        for (int64_t k = from; k < to; k++) {
            inverse[k] = 1 / sqrt(var[k] + eps);
            scale[k] = gamma ? inverse[k] * number(gamma, wide, k) : inverse[k];
            bias[k] = beta ? number(beta, wide, k) : 0;
        }
        for (int64_t i = 0; i < n; i++) {
            const S *m = mean + i * c;
            if (first) {
#pragma omp simd
                for (int64_t k = from; k < to; k++)
                    first[i * c + k] = (S)(scale[k] * (m[k] - mu[k]) + bias[k]);
            }
            if (second) {
#pragma omp simd
                for (int64_t k = from; k < to; k++)
                    second[i * c + k] = (S)(scale[k] * scale[k] * variance[i * c + k]);
            }
            if (projected) {
#pragma omp simd
                for (int64_t k = from; k < to; k++)
                    projected[i * c + k] =
                        (S)(scale[k] * (projection[i * c + k] - mu[k] * total[k]) + bias[k] * total[k]);
            }
        }
    }
}

// The gradients that `grad_input` needs, and those of gamma and beta, from the gradients of what `standard` returned:
// of scale, bias, mu `[c]` and of the descriptions `[n c]`, each of which may be NULL (0). for_gamma and for_beta are
// doubles where `wide`, else floats.
static void NAME(differentiate)(const S *mean, const S *variance, const S *projection, const double *total,
                                const double *scale, const double *mu, const double *inverse, const double *by_scale,
                                const double *by_bias, const double *by_mu, const S *by_first, const S *by_second,
                                const S *by_projection, int batch, int wide, void *for_gamma, void *for_beta, S *q,
                                S *e, S *d, int64_t n, int64_t c, int64_t p, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (n * c > SERIAL)
    for (int64_t from = 0; from < c; from += CHANNELS) {
        int64_t to = SMALLER(from + CHANNELS, c);
        double of_scale[CHANNELS], of_bias[CHANNELS], of_mu[CHANNELS], flow[CHANNELS];
        double share = 1.0 / p, part = share / n;
        int64_t width = to - from;
        for (int64_t k = 0; k < width; k++) {
            of_scale[k] = by_scale ? by_scale[from + k] : 0;
            of_bias[k] = by_bias ? by_bias[from + k] : 0;
            of_mu[k] = by_mu ? by_mu[from + k] : 0;
        }
        const double *a = scale + from, *centre = mu + from;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = i * c + from;
            S *to_q = q + at, *to_e = e + at;
            // flow: what comes by the mean of y
            for (int64_t k = 0; k < width; k++)
                flow[k] = by_first ? by_first[at + k] : 0;
            if (by_second) {
#pragma omp simd
                for (int64_t k = 0; k < width; k++) {
                    double spread = by_second[at + k] * a[k];
                    of_scale[k] += 2 * spread * variance[at + k];
                    to_q[k] = (S)(spread * a[k] * 2 * share);
                }
            } else {
                memset(to_q, 0, width * sizeof(S));
            }
            if (by_projection) {
#pragma omp simd
                for (int64_t k = 0; k < width; k++) {
                    double of = by_projection[at + k], whole = total[from + k];
                    of_scale[k] += of * (projection[at + k] - centre[k] * whole);
                    of_bias[k] += of * whole;
                    of_mu[k] -= of * whole * a[k];
                    d[at + k] = (S)(of * a[k]);
                }
            }
#pragma omp simd
            for (int64_t k = 0; k < width; k++) {
                double off = mean[at + k] - centre[k];
                of_scale[k] += flow[k] * off;
                of_bias[k] += flow[k];
                of_mu[k] -= flow[k] * a[k];
                to_e[k] = (S)(flow[k] * a[k] * share - to_q[k] * off);
            }
        }
        for (int64_t k = 0; k < width; k++) {
            put(for_gamma, wide, from + k, of_scale[k] * inverse[from + k]);
            put(for_beta, wide, from + k, of_bias[k]);
            // mu and the variance are functions of z too.
            of_scale[k] *= inverse[from + k] * inverse[from + k] * a[k] * part;
            of_mu[k] *= part;
        }
        for (int64_t i = 0; batch && i < n; i++) {
            S *to_q = q + i * c + from, *to_e = e + i * c + from;
#pragma omp simd
            for (int64_t k = 0; k < width; k++) {
                to_q[k] -= (S)of_scale[k];
                to_e[k] += (S)of_mu[k];
            }
        }
    }
}

// What follows from the sums of `grad_sums`: a = w scale, and the gradients of scale, bias, mu `[c]` and of w; w and
// for_w may be NULL together.
static void NAME(share)(const S *sum_g, const S *sum_gz, const double *scale, const double *bias, const S *w, S *a,
                        double *for_scale, double *for_bias, double *for_mu, S *for_w, int64_t n, int64_t c,
                        int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (n * c > SERIAL)
    for (int64_t from = 0; from < c; from += CHANNELS) {
        int64_t to = SMALLER(from + CHANNELS, c);
        double of_scale[CHANNELS], of_bias[CHANNELS];
        int64_t width = to - from;
        memset(of_scale, 0, sizeof of_scale);
        memset(of_bias, 0, sizeof of_bias);
        for (int64_t i = 0; i < n; i++) {
            const S *one = sum_g + i * c + from, *two = sum_gz + i * c + from;
            S *to_a = a + i * c + from;
            if (w) {
                const S *factor = w + i * c + from;
                S *to_w = for_w + i * c + from;
#pragma omp simd
                for (int64_t k = 0; k < width; k++) {
                    to_a[k] = (S)(factor[k] * scale[from + k]);
                    of_bias[k] += (double)one[k] * factor[k];
                    of_scale[k] += (double)two[k] * factor[k];
                    to_w[k] = (S)(two[k] * scale[from + k] + one[k] * bias[from + k]);
                }
            } else {
#pragma omp simd
                for (int64_t k = 0; k < width; k++) {
                    to_a[k] = (S)scale[from + k];
                    of_bias[k] += one[k];
                    of_scale[k] += two[k];
                }
            }
        }
        for (int64_t k = 0; k < width; k++) {
            for_scale[from + k] = of_scale[k];
            for_bias[from + k] = of_bias[k];
            for_mu[from + k] = -of_bias[k] * scale[from + k];
        }
    }
}

// out[c] = sum_i kernel[i] s[c + i - (size - 1) / 2] in every row, zero beyond the ends; size is odd.
void NAME(correlate)(const S *s, const S *kernel, S *out, int64_t n, int64_t c, int64_t size, int threads)
{
    int64_t half = size / 2;
#pragma omp parallel for num_threads(threads) schedule(static) if (n * c * size > SERIAL)
    for (int64_t i = 0; i < n; i++) {
        const S *restrict x = s + i * c;
        S *restrict y = out + i * c;
        for (int64_t k = 0; k < c; k++)
            y[k] = 0;
        for (int64_t tap = 0; tap < size; tap++) {
            int64_t shift = tap - half, from = LARGER(0, -shift), to = SMALLER(c, c - shift);
            S weight = kernel[tap];
#pragma omp simd
            for (int64_t k = from; k < to; k++)
                y[k] += weight * x[k + shift];
        }
    }
}

// The kernel's gradient: of[i] = sum over rows and channels of grad[c] s[c + i - (size - 1) / 2].
void NAME(correlate_kernel)(const S *s, const S *grad, double *of, int64_t n, int64_t c, int64_t size, int threads)
{
    int64_t half = size / 2;
#pragma omp parallel for num_threads(threads) schedule(static) if (n * c * size > SERIAL)
    for (int64_t tap = 0; tap < size; tap++) {
        int64_t shift = tap - half, from = LARGER(0, -shift), to = SMALLER(c, c - shift);
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            const S *x = s + i * c + shift, *y = grad + i * c;
            S part = 0;
#pragma omp simd reduction(+ : part)
            for (int64_t k = from; k < to; k++)
                part += x[k] * y[k];
            sum += part;
        }
        of[tap] = sum;
    }
}

// x = 1 / (1 + exp(-x))
static void NAME(logistic)(S *x, int64_t count, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static) if (count > SERIAL)
    for (int64_t k = 0; k < count; k++)
        x[k] = 1 / (1 + EXP(-x[k]));
}
