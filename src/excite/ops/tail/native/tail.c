// The fused residual tail on a CPU, in C: what ../torch.py does, without the calls between the loops.
// Built on first use by build.py; called through ctypes by launch.py.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b)) // a NaN in b stays
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

// Elements, or rows of channels, summed in the type S before they go into a double.
enum { RUN = 1024, ROWS = 64 };
// Channels of one task between the passes, and the numbers below which one thread does all of them.
enum { CHANNELS = 64, SERIAL = 8192 };

struct split {
    int64_t blocks, width;
};

// With fewer samples than threads the channels are split as well, in runs of whole cache lines.
static struct split split_channels(int64_t n, int64_t c, int threads)
{
    int64_t blocks = n >= threads ? 1 : (threads + n - 1) / n;
    int64_t width = ((c + blocks - 1) / blocks + 31) / 32 * 32;
    struct split made = {(c + width - 1) / width, width};
    return made;
}

static inline float from_bfloat16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

// To nearest, ties to even; a NaN stays one.
static inline uint16_t to_bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (uint16_t)rounded;
}

// Parameters of a norm are doubles where `wide`, else floats.
static inline double number(const void *x, int wide, int64_t k)
{
    return wide ? ((const double *)x)[k] : ((const float *)x)[k];
}

static inline void put(void *x, int wide, int64_t k, double value)
{
    if (wide)
        ((double *)x)[k] = value;
    else
        ((float *)x)[k] = (float)value;
}

static inline void approach(void *x, int wide, int64_t k, double value, double by)
{
    double old = number(x, wide, k);
    put(x, wide, k, old + by * (value - old));
}

#define S float
#define EXP expf
#define NUMBERS(f) JOIN(f, float)
#define NAME(f) JOIN(f, float)
#include "numbers.h"
#define T float
#define LOAD(x) (x)
#define STORE(x) (x)
#include "passes.h"
#undef T
#undef LOAD
#undef STORE
#undef NAME

#define NAME(f) JOIN(f, bfloat16)
#define T uint16_t
#define LOAD(x) from_bfloat16(x)
#define STORE(x) to_bfloat16(x)
#include "passes.h"
#undef T
#undef LOAD
#undef STORE
#undef NAME
#undef S

#undef NUMBERS
#undef EXP
#define S double
#define EXP exp
#define NUMBERS(f) JOIN(f, double)
#define NAME(f) JOIN(f, double)
#include "numbers.h"
#define T double
#define LOAD(x) (x)
#define STORE(x) (x)
#include "passes.h"
