/* The affine warp of augmentation: one image, uint8 or float32, in one pass. Knows nothing of Python.
 *
 * Coordinates and border rules are those of SciPy's `affine_transform` of order 0 and 1, in float64 and in its order
 * (NI_GeometricTransform of scipy/ndimage/src/ni_interpolation.c), and so those of Keras' apply_affine_transform.
 * images/augment/plain.py is the same in NumPy, and says what the border rules are. Both must find the same places, so
 * this is compiled without fused multiply-add.
 *
 * Of each row, the span of pixels whose four neighbours are all inside the image is found first: there nothing has to be
 * checked. RGB of uint8 is handled four samples at a time (R, G, B and one unused), in float32. Everything else, and all
 * where `exact` is asked for, is summed in float64 in SciPy's order, and gives its bits.
 */
#ifndef SHARDKIT_AUGMENT_WARP_H
#define SHARDKIT_AUGMENT_WARP_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__)
#error "GCC or clang is needed, for their vector types"
#endif
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define FARTHEST 1e15 /* as plain.FARTHEST */

typedef double v2 __attribute__((vector_size(16)));
typedef float v4 __attribute__((vector_size(16)));

enum fill { FILL_NEAREST, FILL_CONSTANT, FILL_REFLECT, FILL_WRAP }; /* as plain.FILL_MODES */

typedef struct {
    ptrdiff_t height, width, channels;
    double matrix[6];
    int fill, order, exact;
    double cval;
    int flip_rows, flip_columns;
    float scale;
} job;

/* A row of the result: its pixel x comes from (down + column * down_step, right + column * right_step), where column is
 * x, or counts from the other end. */
typedef struct {
    double down, down_step, right, right_step, first, step;
} row;

/* Where a coordinate lies on its axis: between two pixels, `weight` is that of the first. */
typedef struct {
    ptrdiff_t first, second;
    double weight;
} place;

/* ------------------------------------------------------------------------------------------------- the borders */

static double reflected(double at, double length)
{
    double period = 2 * length;
    if (at < 0) {
        if (at < -period)
            at += period * (double)(int64_t)(-at / period);
        return at < -length ? at + period : (at > -1e-15 ? 1e-15 : -at) - 1;
    }
    at -= period * (double)(int64_t)(at / period);
    return at >= length ? period - at - 1 : at;
}

static double wrapped(double at, double length)
{
    double period = length - 1;
    if (at < 0)
        return at + period * (double)((int64_t)(-at / period) + 1);
    return at - period * (double)(int64_t)(at / period);
}

/* floor() without a call of it, for what fits into 64 bits. */
static ALWAYS_INLINE double floored(double at)
{
    double whole = (double)(int64_t)at;
    return whole > at ? whole - 1 : whole;
}

static ALWAYS_INLINE ptrdiff_t inside(double at, ptrdiff_t length)
{
    return at<0 ? 0 : at>(double)(length - 1) ? length - 1 : (ptrdiff_t)at;
}

/* A coordinate that is not between the centres of the first and the last pixel, or is none. 0: it takes the constant. */
static ALWAYS_INLINE int place_at_border(double at, ptrdiff_t length, const job *self, place *found)
{
    double last = (double)(length - 1), low;
    if (!(at > -FARTHEST))
        at = -FARTHEST;
    if (at > FARTHEST)
        at = FARTHEST;
    if (at < 0 || at > last) {
        if (self->fill == FILL_CONSTANT)
            return 0;
        if (self->fill == FILL_NEAREST)
            at = at < 0 ? 0 : last;
        else if (length == 1)
            at = 0;
        else
            at = self->fill == FILL_REFLECT ? reflected(at, (double)length) : wrapped(at, (double)length);
    }
    low = floored(self->order ? at : at + 0.5);
    found->first = inside(low, length);
    found->second = inside(low + 1, length);
    found->weight = 1.0 - (at - low);
    return 1;
}

static ALWAYS_INLINE int place_of(double at, ptrdiff_t length, const job *self, place *found)
{
    if (!(at >= 0 && at < (double)(length - 1)))
        return place_at_border(at, length, self, found);
    found->first = (ptrdiff_t)(self->order ? at : at + 0.5);
    found->second = found->first + 1;
    found->weight = 1.0 - (at - (double)found->first);
    return 1;
}

/* ------------------------------------------------------------------------------------------------------ the rows */

static ALWAYS_INLINE double down_at(const row *line, ptrdiff_t x)
{
    return line->down + (line->first + line->step * (double)x) * line->down_step;
}

static ALWAYS_INLINE double right_at(const row *line, ptrdiff_t x)
{
    return line->right + (line->first + line->step * (double)x) * line->right_step;
}

static row row_of(const job *self, ptrdiff_t y)
{
    const double *m = self->matrix;
    double source = (double)(self->flip_rows ? self->height - 1 - y : y);
    row line = {m[2] + source * m[0], m[1], m[5] + source * m[3], m[4], 0, 1};
    if (self->flip_columns) {
        line.first = (double)(self->width - 1);
        line.step = -1;
    }
    return line;
}

static int all_inside(const job *self, const row *line, ptrdiff_t x)
{
    double down = down_at(line, x), right = right_at(line, x);
    return down >= 0 && down < (double)(self->height - 1) && right >= 0 && right < (double)(self->width - 1);
}

/* Narrows from ... to to the pixels whose coordinate start + x * step lies in 0 ... last, or to few too many. */
static void narrow(double start, double step, double last, double *from, double *to)
{
    double one = -start / step, other = (last - start) / step; /* infinities where step is 0, or a NaN */
    double low = floor(one < other ? one : other), high = ceil(one < other ? other : one) + 1;
    if (low > *from)
        *from = low;
    if (high < *to)
        *to = high;
}

/* The pixels from ... to - 1 of a row whose neighbours are all inside the image. What a rounding error lets through at
 * the ends is taken off: in between the coordinates are monotonic. */
static void span_of(const job *self, const row *line, ptrdiff_t *from, ptrdiff_t *to)
{
    double low = 0, high = (double)self->width;
    narrow(down_at(line, 0), line->step * line->down_step, (double)(self->height - 1), &low, &high);
    narrow(right_at(line, 0), line->step * line->right_step, (double)(self->width - 1), &low, &high);
    *from = low < high ? (ptrdiff_t)low : 0;
    *to = low < high ? (ptrdiff_t)high : 0;
    while (*from < *to && !all_inside(self, line, *from))
        ++*from;
    while (*from < *to && !all_inside(self, line, *to - 1))
        --*to;
}

/* --------------------------------------------------------------------------------------------- any kind of pixels */

static ALWAYS_INLINE void store(float value, void *out, ptrdiff_t at, int bytes)
{
    if (bytes) {
        float rounded = rintf(value);
        ((uint8_t *)out)[at] = rounded > 0 ? rounded < 255 ? (uint8_t)rounded : 255 : 0; /* a NaN is 0 */
    } else {
        ((float *)out)[at] = value;
    }
}

static ALWAYS_INLINE double sample(const void *image, ptrdiff_t at, int of_bytes)
{
    return of_bytes ? ((const uint8_t *)image)[at] : ((const float *)image)[at];
}

/* The pixels from ... to - 1 of a row, wherever they come from, to `out` at the sample `at` and on. */
static ALWAYS_INLINE void any_pixels(const void *image, int of_bytes, void *out, int bytes, ptrdiff_t channels,
                                     const job *self, const row *line, ptrdiff_t from, ptrdiff_t to, ptrdiff_t at)
{
    ptrdiff_t across = self->width * channels;
    for (ptrdiff_t x = from; x < to; x++, at += channels) {
        place v = {0, 0, 0}, h = {0, 0, 0};
        int there = place_of(down_at(line, x), self->height, self, &v);
        there = there && place_of(right_at(line, x), self->width, self, &h);
        for (ptrdiff_t c = 0; c < channels; c++) {
            double sum = self->cval;
            if (there) {
                ptrdiff_t upper = v.first * across + c, lower = v.second * across + c;
                sum = sample(image, upper + h.first * channels, of_bytes);
                if (self->order) {
                    double v2 = 1.0 - v.weight, h2 = 1.0 - h.weight;
                    sum = sum * v.weight * h.weight;
                    sum = sum + sample(image, upper + h.second * channels, of_bytes) * v.weight * h2;
                    sum = sum + sample(image, lower + h.first * channels, of_bytes) * v2 * h.weight;
                    sum = sum + sample(image, lower + h.second * channels, of_bytes) * v2 * h2;
                }
            }
            store((float)sum * self->scale, out, at + c, bytes);
        }
    }
}

#define ANY(name, of_bytes, bytes) \
    static void name(const void *image, void *out, const job *self, const row *line, ptrdiff_t from, ptrdiff_t to, \
                     ptrdiff_t at) \
    { \
        if (self->channels == 3) \
            any_pixels(image, of_bytes, out, bytes, 3, self, line, from, to, at); \
        else \
            any_pixels(image, of_bytes, out, bytes, self->channels, self, line, from, to, at); \
    }

ANY(bytes_to_bytes, 1, 1)
ANY(bytes_to_floats, 1, 0)
ANY(floats_to_bytes, 0, 1)
ANY(floats_to_floats, 0, 0)

typedef void pixels_function(const void *, void *, const job *, const row *, ptrdiff_t, ptrdiff_t, ptrdiff_t);

/* ---------------------------------------------------------------------------------------- RGB of uint8, in float32 */

static ALWAYS_INLINE v4 floats_of(uint32_t word)
{
#if defined(__SSE2__)
    __m128i zero = _mm_setzero_si128(), four = _mm_cvtsi32_si128((int)word);
    return (v4)_mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(four, zero), zero));
#else
    uint8_t four[4];
    memcpy(four, &word, 4);
    return (v4){four[0], four[1], four[2], four[3]};
#endif
}

/* Four bytes of which the first three are a pixel that has another one before it: none behind it is loaded. */
static ALWAYS_INLINE uint32_t word_of_second(const uint8_t *pixel)
{
    uint32_t word;
    memcpy(&word, pixel - 1, 4);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return word >> 8;
#else
    return word << 8;
#endif
}

static ALWAYS_INLINE uint32_t word_of(const uint8_t *pixel)
{
    uint32_t word;
    memcpy(&word, pixel, 4);
    return word;
}

/* Between a pixel and the one to its right. */
static ALWAYS_INLINE v4 between(const uint8_t *pixel, v4 share)
{
    v4 one = floats_of(word_of(pixel)), other = floats_of(word_of_second(pixel + 3));
    return one + (other - one) * share;
}

static ALWAYS_INLINE void store_rgb(v4 value, void *out, ptrdiff_t at, int bytes, int more)
{
    if (more && !bytes) {
        memcpy((float *)out + at, &value, sizeof value); /* the fourth is written over by the next pixel */
        return;
    }
#if defined(__SSE2__)
    if (more) {
        __m128 most = _mm_min_ps(_mm_set1_ps(255), (__m128)value); /* what is too large for 32 bits would be 0 */
        __m128i whole = _mm_cvtps_epi32(most), word = _mm_packs_epi32(whole, whole);
        int four = _mm_cvtsi128_si32(_mm_packus_epi16(word, word));
        memcpy((uint8_t *)out + at, &four, sizeof four);
        return;
    }
#endif
    for (int c = 0; c < 3; c++)
        store(value[c], out, at + c, bytes);
}

/* Whole and fractional part of a place, both not negative. */
typedef struct {
    int32_t y, x;
    v4 down, right; /* the fractions, four times each */
} corner;

static ALWAYS_INLINE corner corner_of(v2 at)
{
#if defined(__SSE2__)
    __m128i whole = _mm_cvttpd_epi32((__m128d)at);
    __m128 parts = _mm_cvtpd_ps((__m128d)at - _mm_cvtepi32_pd(whole));
    return (corner){_mm_cvtsi128_si32(whole), _mm_cvtsi128_si32(_mm_shuffle_epi32(whole, 1)),
                    (v4)_mm_shuffle_ps(parts, parts, 0x00), (v4)_mm_shuffle_ps(parts, parts, 0x55)};
#else
    int32_t y = (int32_t)at[0], x = (int32_t)at[1];
    float down = (float)(at[0] - y), right = (float)(at[1] - x);
    return (corner){y, x, {down, down, down, down}, {right, right, right, right}};
#endif
}

static ALWAYS_INLINE void rgb_pixels(const uint8_t *image, void *out, int bytes, const job *self, const row *line,
                                     ptrdiff_t from, ptrdiff_t to, ptrdiff_t at)
{
    ptrdiff_t across = self->width * 3;
    float scale = self->scale;
    v2 start = {line->down, line->right}, step = {line->down_step, line->right_step};
    double column = line->first + line->step * (double)from;
    for (ptrdiff_t x = from; x < to; x++, at += 3, column += line->step) {
        corner found = corner_of(start + column * step);
        const uint8_t *pixel = image + found.y * across + (ptrdiff_t)found.x * 3;
        v4 upper = between(pixel, found.right), lower = between(pixel + across, found.right);
        store_rgb((upper + (lower - upper) * found.down) * scale, out, at, bytes, x + 1 < to);
    }
}

/* The same for pixels that may lie anywhere, of an image with more than one. */
static ALWAYS_INLINE void rgb_border(const uint8_t *image, void *out, int bytes, const job *self, const row *line,
                                     ptrdiff_t from, ptrdiff_t to, ptrdiff_t at)
{
    ptrdiff_t last = self->height * self->width - 1;
    float cval = (float)self->cval, scale = self->scale;
    for (ptrdiff_t x = from; x < to; x++, at += 3) {
        place v, h;
        v4 value = {cval, cval, cval, cval};
        if (place_of(down_at(line, x), self->height, self, &v) && place_of(right_at(line, x), self->width, self, &h)) {
            ptrdiff_t pixels[4] = {v.first * self->width + h.first, v.first * self->width + h.second,
                                   v.second * self->width + h.first, v.second * self->width + h.second};
            v4 four[4];
            for (int i = 0; i < 4; i++) {
                const uint8_t *pixel = image + pixels[i] * 3;
                four[i] = floats_of(pixels[i] == last ? word_of_second(pixel) : word_of(pixel));
            }
            four[0] += (four[1] - four[0]) * (float)(1.0 - h.weight);
            four[2] += (four[3] - four[2]) * (float)(1.0 - h.weight);
            value = four[0] + (four[2] - four[0]) * (float)(1.0 - v.weight);
        }
        store_rgb(value * scale, out, at, bytes, x + 1 < to);
    }
}

#define RGB(name, function, bytes) \
    static void name(const void *image, void *out, const job *self, const row *line, ptrdiff_t from, ptrdiff_t to, \
                     ptrdiff_t at) \
    { \
        function(image, out, bytes, self, line, from, to, at); \
    }

RGB(rgb_to_bytes, rgb_pixels, 1)
RGB(rgb_to_floats, rgb_pixels, 0)
RGB(rgb_border_to_bytes, rgb_border, 1)
RGB(rgb_border_to_floats, rgb_border, 0)

static void warp_image(const void *image, int of_bytes, void *out, int bytes, const job *self)
{
    pixels_function *border = of_bytes ? bytes ? bytes_to_bytes : bytes_to_floats
                              : bytes  ? floats_to_bytes
                                       : floats_to_floats;
    pixels_function *inner = NULL;
    ptrdiff_t at = 0;
    if (of_bytes && self->channels == 3 && self->order == 1 && !self->exact && self->height * self->width > 1 &&
        self->height <= INT32_MAX && self->width <= INT32_MAX) {
        inner = bytes ? rgb_to_bytes : rgb_to_floats;
        border = bytes ? rgb_border_to_bytes : rgb_border_to_floats;
    }
    for (ptrdiff_t y = 0; y < self->height; y++, at += self->width * self->channels) {
        ptrdiff_t from = 0, to = 0;
        row line = row_of(self, y);
        if (inner != NULL) {
            span_of(self, &line, &from, &to);
            border(image, out, self, &line, 0, from, at);
            inner(image, out, self, &line, from, to, at + from * 3);
        }
        border(image, out, self, &line, to, self->width, at + to * self->channels);
    }
}

#endif
