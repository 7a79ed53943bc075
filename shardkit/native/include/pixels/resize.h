/* Crop and resize: which box of an image is taken, and the antialiased resize of its rows into a slot of a batch.
 *
 * Knows nothing of JPEG. The boxes are those of crops.py, to the bit. Each output row is the weighted sum of some input
 * rows (vertical pass), and each of its pixels that of some of their pixels (horizontal pass): Pillow's antialiased
 * `resize(size, box=box)` with a filter that has no negative weights, in fixed point. The other filters, and Pillow's
 * result to the bit, are in pixels/precise.h.
 *
 * Fixed point: a weight is a uint16 with 65535 for one, a sample is 8.8 in a uint16, and a product keeps its high 16
 * bits, which SSE2 and NEON compute for 8 samples at once. RGB is handled as four samples (R, G, B and one unused), so
 * that two pixels fill a vector.
 */
#ifndef SHARDKIT_PIXELS_RESIZE_H
#define SHARDKIT_PIXELS_RESIZE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__)
#error "GCC or clang is needed, for their vector types"
#endif
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define RANDOM_DRAWS 22 /* as crops.RANDOM_DRAWS */

typedef uint16_t v8 __attribute__((vector_size(16)));
typedef uint8_t v8b __attribute__((vector_size(8)));

#define PLACE_DRAWS 2    /* as crops.PLACE_DRAWS */

enum crop { CROP_RESIZE, CROP_CENTER, CROP_RANDOM, CROP_COVER, CROP_RANDOM_COVER };
enum filter { BILINEAR, BICUBIC, LANCZOS, BOX, HAMMING, NEAREST, FILTERS };
enum flip { FLIP_HORIZONTAL = 1, FLIP_VERTICAL = 2 };

/* What is asked of every image of a batch. */
typedef struct {
    int height, width; /* of the slot */
    int channels;      /* 3 or 1 */
    int crop;
    int filter;
    int exact; /* Pillow's pixels, to the bit */
    int same;  /* images of another size than the slot's are left out */
    int tall;  /* columns first, in images that get much lower: as Pillow does from 13 on */
    double scale[2], ratio[2], log_ratio[2]; /* of a random crop, as crops.random_box takes them */
    double headroom;
    double max_pixels;
    int max_scans;
} settings;

typedef struct {
    double top, left, height, width;
} box;

/* The taps of one axis: output i is the sum over t < count[i] of weight[i * most + t] * input[first[i] + t]. */
typedef struct {
    int *first, *count;
    uint16_t *weight;
    int most;
} taps;

/* ----------------------------------------------------------------------------------------------------- geometry */

/* share: of the largest box with the proportions of the slot. draws: of its place; NULL for the middle. */
static box box_of_slot(int height, int width, const settings *set, double share, const double *draws)
{
    double by_height = (double)height / set->height, by_width = (double)width / set->width;
    double unit = share * (by_height < by_width ? by_height : by_width);
    int box_height = (int)rint(unit * set->height), box_width = (int)rint(unit * set->width);
    int down, right;
    box_height = box_height > 1 ? box_height : 1;
    box_width = box_width > 1 ? box_width : 1;
    down = height - box_height;
    right = width - box_width;
    if (draws)
        return (box){(int)(draws[0] * (down + 1)), (int)(draws[1] * (right + 1)), box_height, box_width};
    return (box){down / 2, right / 2, box_height, box_width};
}

/* Every operation in the order of crops.random_box, and built without fused multiply-add: the same box, to the bit. */
static box random_box(int height, int width, const settings *set, const double *draws)
{
    const double area = (double)height * width, low = set->log_ratio[0], high = set->log_ratio[1];
    int box_height = height, box_width = width;
    for (int i = 2; i < RANDOM_DRAWS; i += 2) {
        double box_area = area * (set->scale[0] + (set->scale[1] - set->scale[0]) * draws[i]);
        double ratio = exp(low + (high - low) * draws[i + 1]);
        double w = rint(sqrt(box_area * ratio)), h = rint(sqrt(box_area / ratio));
        if (0 < w && w <= width && 0 < h && h <= height)
            return (box){(int)(draws[0] * (height - h + 1)), (int)(draws[1] * (width - w + 1)), h, w};
    }
    if ((double)width / height < set->ratio[0])
        box_height = (int)rint(width / set->ratio[0]);
    else if ((double)width / height > set->ratio[1])
        box_width = (int)rint(height * set->ratio[1]);
    box_height = box_height > 1 ? box_height : 1;
    box_width = box_width > 1 ? box_width : 1;
    return (box){(height - box_height) / 2, (width - box_width) / 2, box_height, box_width};
}

static box choose_box(int height, int width, const settings *set, const double *draws)
{
    if (set->crop == CROP_CENTER)
        return box_of_slot(height, width, set, 224.0 / 256.0, NULL);
    if (set->crop == CROP_RANDOM)
        return random_box(height, width, set, draws);
    if (set->crop == CROP_COVER || set->crop == CROP_RANDOM_COVER)
        return box_of_slot(height, width, set, 1, set->crop == CROP_COVER ? NULL : draws);
    return (box){0, 0, height, width};
}

static inline int dct_divisor(const box *part, const settings *set)
{
    double by_height = part->height / set->height, by_width = part->width / set->width;
    double shrink = (by_height < by_width ? by_height : by_width) / set->headroom;
    return shrink >= 8 ? 8 : shrink >= 4 ? 4 : shrink >= 2 ? 2 : 1;
}

/* --------------------------------------------------------------------------------------------------- the resize */

/* The half-widths of Pillow's filters, where an image is not shrunk. */
static const double supports[FILTERS] = {1, 2, 3, 0.5, 1, 0};

/* Pillow's filters, at a distance from the center that is at most the half-width. */
static ALWAYS_INLINE double filtered(int filter, double x)
{
    const double pi = 3.14159265358979323846, a = -0.5;
    double s;
    if (filter == BILINEAR) {
        x = fabs(x);
        return x < 1 ? 1 - x : 0;
    }
    if (filter == BOX)
        return x > -0.5 && x <= 0.5;
    if (filter == LANCZOS && (x < -3 || x >= 3))
        return 0;
    x = fabs(x);
    if (x == 0)
        return 1;
    switch (filter) {
    case BICUBIC:
        if (x < 1)
            return ((a + 2) * x - (a + 3)) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    case LANCZOS: /* sinc(x) sinc(x / 3), from one sine: sin 3a = 3 sin a - 4 sin^3 a */
        s = sin(pi * x / 3);
        return s * (3 - 4 * s * s) * s * 3 / (pi * pi * x * x);
    case HAMMING: return x < 1 ? sin(pi * x) / (pi * x) * (0.54f + 0.46f * cos(pi * x)) : 0;
    default: return 0;
    }
}

/* How many input pixels one output pixel has at most: those in a span of twice the filter's half-width. */
static int most_taps(int filter, double length, int out)
{
    double shrink = length / out;
    return (int)ceil(2 * supports[filter] * (shrink > 1 ? shrink : 1)) + 1;
}

/* The inputs of output i, as in Pillow: those within the half-width of its center, cut at the image's edges. */
static inline void find_inputs(int in, double center, double half, int most, int *first, int *end)
{
    *first = (int)(center - half + 0.5);
    *end = (int)(center + half + 0.5);
    *first = *first < 0 ? 0 : *first > in - 1 ? in - 1 : *first;
    *end = *end > in ? in : *end <= *first ? *first + 1 : *end;
    *end = *end - *first > most ? *first + most : *end;
}

/* The taps over the span start … start + length of `in` pixels, of a filter without negative weights. reverse: the
 * outputs in reverse order, which is a flip. */
static ALWAYS_INLINE void fill_taps_of(const int filter, taps *axis, int in, double start, double length, int out,
                                       int reverse)
{
    enum { KEPT = 32 }; /* weights that are not computed twice */
    const double shrink = length / out, wide = shrink > 1 ? shrink : 1, half = supports[filter] * wide;
    double kept[KEPT];
    for (int i = 0; i < out; i++) {
        double center = start + (i + 0.5) * shrink, sum = 0, scale;
        int first, end, place = reverse ? out - 1 - i : i;
        uint16_t *weight = axis->weight + (size_t)place * axis->most;
        int left = 65535, largest = 0;
        find_inputs(in, center, half, axis->most, &first, &end);
        for (int t = 0; t < end - first; t++) {
            double w = filtered(filter, (first + t + 0.5 - center) / wide);
            w = w > 0 ? w : 0;
            kept[t < KEPT ? t : 0] = w;
            sum += w;
        }
        scale = sum > 0 ? 65535 / sum : 0;
        for (int t = 0; t < end - first; t++) {
            double w = t && t < KEPT ? kept[t] : filtered(filter, (first + t + 0.5 - center) / wide);
            weight[t] = (uint16_t)(w > 0 ? w * scale : 0);
            left -= weight[t];
            largest = weight[t] > weight[largest] ? t : largest;
        }
        weight[largest] = (uint16_t)(weight[largest] + left); /* they add up to 65535 */
        memset(weight + (end - first), 0, (size_t)(axis->most - (end - first)) * sizeof *weight);
        axis->first[place] = first;
        axis->count[place] = end - first;
    }
}

/* The default filter is inlined: at small sizes the weights take a good part of the time. */
static void fill_taps(taps *axis, int filter, int in, double start, double length, int out, int reverse)
{
    if (filter == BILINEAR)
        fill_taps_of(BILINEAR, axis, in, start, length, out, reverse);
    else
        fill_taps_of(filter, axis, in, start, length, out, reverse);
}

static inline v8 high_product(v8 a, v8 b)
{
#if defined(__SSE2__)
    return (v8)_mm_mulhi_epu16((__m128i)a, (__m128i)b);
#else
    typedef uint32_t v8w __attribute__((vector_size(32)));
    return __builtin_convertvector((__builtin_convertvector(a, v8w) * __builtin_convertvector(b, v8w)) >> 16, v8);
#endif
}

/* 8 bytes as the high bytes of 8 samples. */
static inline v8 widened(const unsigned char *bytes)
{
#if defined(__SSE2__)
    return (v8)_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)bytes));
#else
    v8b in;
    memcpy(&in, bytes, sizeof in);
    return __builtin_convertvector(in, v8) << 8;
#endif
}

/* What truncated products lose on average, and the half for rounding. Below 256, so that 255.0 can't overflow. */
static inline uint16_t rounding(int count)
{
    return (uint16_t)(128 + (count < 120 ? count : 120));
}

static inline v8 all(uint16_t value)
{
    return (v8){value, value, value, value, value, value, value, value};
}

/* Inlined for each small `count`, so that the compiler unrolls the loop over it and keeps the weights in registers. */
static ALWAYS_INLINE void sum_count_rows(uint16_t *sum, const unsigned char *const *rows, const uint16_t *weight,
                                         const int count, int n)
{
    for (int i = 0; i < n; i += 8) {
        v8 total = all((uint16_t)(count / 2));
        for (int t = 0; t < count; t++)
            total += high_product(widened(rows[t] + i), all(weight[t]));
        memcpy(sum + i, &total, sizeof total);
    }
}

/* sum (n samples of 8.8) = the weighted rows. All rows, and sum, have room for 8 more than n. */
static void sum_rows(uint16_t *sum, const unsigned char *const *rows, const uint16_t *weight, int count, int n)
{
    switch (count) {
    case 1: sum_count_rows(sum, rows, weight, 1, n); break;
    case 2: sum_count_rows(sum, rows, weight, 2, n); break;
    case 3: sum_count_rows(sum, rows, weight, 3, n); break;
    case 4: sum_count_rows(sum, rows, weight, 4, n); break;
    default: sum_count_rows(sum, rows, weight, count, n);
    }
}

/* Four samples: the weighted pixels. */
static ALWAYS_INLINE uint32_t sum_pixel(const uint16_t *in, const v8 *pairs, const int count)
{
    const uint16_t r = rounding(count);
    uint32_t pixel;
    v8 sum = {r, r, r, r, 0, 0, 0, 0};
    for (int p = 0; p < count; p++) {
        v8 two;
        memcpy(&two, in + 8 * p, sizeof two);
        sum += high_product(two, pairs[p]);
    }
#if defined(__SSE2__)
    __m128i both = _mm_srli_epi16(_mm_add_epi16((__m128i)sum, _mm_srli_si128((__m128i)sum, 8)), 8);
    pixel = (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(both, both));
#else
    uint8_t bytes[4];
    for (int c = 0; c < 4; c++)
        bytes[c] = (uint8_t)((uint16_t)(sum[c] + sum[c + 4]) >> 8);
    memcpy(&pixel, bytes, sizeof pixel);
#endif
    return pixel;
}

static ALWAYS_INLINE void sum_count_pixels(unsigned char *out, const uint16_t *sums, const int *first, const v8 *pairs,
                                           const int count, int n)
{
    uint32_t pixel;
    for (int x = 0; x < n - 1; x++, out += 3, pairs += count) {
        pixel = sum_pixel(sums + 4 * (size_t)first[x], pairs, count);
        memcpy(out, &pixel, 4); /* the fourth byte is overwritten by the next pixel */
    }
    pixel = sum_pixel(sums + 4 * (size_t)first[n - 1], pairs, count);
    memcpy(out, &pixel, 3);
}

/* A row of pixels from a row of sums of 4 samples each. pairs: for each output its weights by two, each 4 times. */
static void sum_pixels_rgb(unsigned char *out, const uint16_t *sums, const int *first, const v8 *pairs, int count,
                           int n)
{
    switch (count) {
    case 1: sum_count_pixels(out, sums, first, pairs, 1, n); break;
    case 2: sum_count_pixels(out, sums, first, pairs, 2, n); break;
    case 3: sum_count_pixels(out, sums, first, pairs, 3, n); break;
    default: sum_count_pixels(out, sums, first, pairs, count, n);
    }
}

static void sum_pixels_gray(unsigned char *out, const uint16_t *sums, const taps *axis, int n)
{
    for (int x = 0; x < n; x++) {
        const uint16_t *in = sums + axis->first[x], *weight = axis->weight + (size_t)x * axis->most;
        uint32_t sum = 0;
        for (int t = 0; t < axis->count[x]; t++)
            sum += (uint32_t)in[t] * weight[t] >> 8;
        out[x] = (unsigned char)((sum + (128 << 8)) >> 16);
    }
}
#endif
