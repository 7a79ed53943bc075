/* Resize with signed weights: bicubic and Lanczos, every filter as Pillow computes it, and nearest pixels.
 *
 * Pillow's antialiased resize, after its published algorithm: each row is resized to bytes first, then the columns of
 * these; from Pillow 13 on the other way round where that is less work. A weight has 22 binary places, and a sum is rounded and clipped once in each pass. With `wide` that is done
 * here to the bit; a weight of 22 places is then two parts of 11, since processors multiply and add pairs of 16 bits
 * (SSE2's pmaddwd). Without `wide` a weight has 14 places and is one part, which takes half the time.
 *
 * RGB is handled as four samples (R, G, B and one unused). Where the processor has no SSE2, loops do the same.
 */
#ifndef SHARDKIT_PIXELS_PRECISE_H
#define SHARDKIT_PIXELS_PRECISE_H

#include "resize.h"

#define WIDE_BITS 22
#define NARROW_BITS 14
#define PART_BITS 11
#define NARROW_TAPS 64 /* with more of them, 14 places would not be enough */

typedef int16_t v8s __attribute__((vector_size(16)));
typedef int32_t v4 __attribute__((vector_size(16)));
typedef uint32_t v4u __attribute__((vector_size(16)));

/* As `taps`, with signed weights. used: the largest of the counts, often one less than there is room for. exact: room
 * for one output's weights before they are rounded. */
typedef struct {
    int *first, *count;
    int32_t *weight;
    double *exact;
    int most, used;
} precise_taps;

/* Columns are computed by four, so that there are weights for up to three more, all zero. */
#define OUTPUTS_AT_ONCE 4
#define EIGHT 8 /* weights of a column in a vector */

static int outputs_of(int n)
{
    return (n + OUTPUTS_AT_ONCE - 1) / OUTPUTS_AT_ONCE * OUTPUTS_AT_ONCE;
}

static int pairs_of(int taps)
{
    return (taps + 1) / 2;
}

static int eights_of(int taps)
{
    return (taps + EIGHT - 1) / EIGHT;
}

/* ------------------------------------------------------------------------------------------------------- weights */

/* How many taps there are, for the sizes of the memory. Whether the weights have to be wide. */
static int plan_taps(precise_taps *down, precise_taps *across, const settings *set, double height, double width,
                     int in_height, int in_width)
{
    down->most = most_taps(set->filter, height, set->height);
    across->most = most_taps(set->filter, width, set->width);
    down->most = down->most < in_height ? down->most : in_height;
    across->most = across->most < in_width ? across->most : in_width;
    return set->exact || down->most > NARROW_TAPS || across->most > NARROW_TAPS;
}

/* Whether the columns come first: Pillow's rule, which looks at the sizes of the whole image. */
static int columns_first(const settings *set, int in_height, int in_width)
{
    return set->tall && set->height < in_height &&
           (int64_t)in_height - set->height > 2 * ((int64_t)in_width - set->width);
}

static size_t taps_bytes(const precise_taps *axis, int out)
{
    return (size_t)out * (2 * sizeof(int) + (size_t)axis->most * sizeof(int32_t)) + (size_t)axis->most * sizeof(double);
}

/* Of the weights of `out` columns, by fill_eights, and of `out` rows, by fill_pairs. */
static size_t eights_bytes(const precise_taps *axis, int out)
{
    return (size_t)out * eights_of(axis->most) * 2 * sizeof(v8s);
}

static size_t pairs_bytes(const precise_taps *axis, int out)
{
    return (size_t)out * pairs_of(axis->most) * 2 * sizeof(v8s);
}

/* The filter at the inputs first, first + 1 and so on, of which `by` lie in a unit around the center. Their sum. */
static double fill_filtered(double *values, int filter, int first, double center, double by, int count)
{
    double sum = 0;
    for (int t = 0; t < count; t++) {
        values[t] = filtered(filter, (t + first - center + 0.5) * by);
        sum += values[t];
    }
    return sum;
}

/* As fill_filtered for Lanczos, with one sine for all of them: good to 12 digits. turn: sine and cosine of the angle
 * between two inputs. */
static double fill_lanczos(double *values, int first, double center, double by, int count, const double turn[2])
{
    const double pi = 3.14159265358979323846, sin_turn = turn[0], cos_turn = turn[1];
    double x = (first - center + 0.5) * by, s = sin(pi / 3 * x), c = cos(pi / 3 * x), sum = 0;
    for (int t = 0; t < count; t++, x += by) {
        const double around = s * cos_turn + c * sin_turn;
        const double lobes = s * s * (3 - 4 * s * s) * 3, distance = pi * pi * x * x;
        values[t] = x < -3 || x >= 3 ? 0 : distance > 1e-3 ? lobes / distance : filtered(LANCZOS, x);
        sum += values[t];
        c = c * cos_turn - s * sin_turn;
        s = around;
    }
    return sum;
}

/* Whether twelve digits of the values do not tell how weights of 22 places are rounded: one of these is close to the
 * middle between two of them, or the sum is far below that of a whole filter. */
static int are_undecided(const double *values, int count, double sum)
{
    int found = !(sum > 0.1);
    for (int t = 0; !found && t < count; t++) {
        const double w = fabs(values[t] / sum * (1 << WIDE_BITS));
        found = fabs(w - (int)w - 0.5) < 1e-4;
    }
    return found;
}

static void fill_precise_taps(precise_taps *axis, const settings *set, int wide, int in, double start, double length,
                              int out, int reverse)
{
    const double shrink = length / out, scale = shrink > 1 ? shrink : 1, one = 1 << (wide ? WIDE_BITS : NARROW_BITS);
    const double by = 1 / scale, angle = 3.14159265358979323846 / 3 * by, turn[2] = {sin(angle), cos(angle)};
    axis->used = 0;
    for (int i = 0; i < out; i++) {
        const double center = start + (i + 0.5) * shrink;
        int first, end, count, place = reverse ? out - 1 - i : i, left = (int)one, largest = 0;
        int32_t *weight = axis->weight + (size_t)place * axis->most;
        double sum;
        find_inputs(in, center, supports[set->filter] * scale, axis->most, &first, &end);
        count = end - first;
        sum = set->filter == LANCZOS ? fill_lanczos(axis->exact, first, center, by, count, turn)
                                     : fill_filtered(axis->exact, set->filter, first, center, by, count);
        if (wide && set->filter == LANCZOS && are_undecided(axis->exact, count, sum))
            sum = fill_filtered(axis->exact, LANCZOS, first, center, by, count);
        for (int t = 0; t < count; t++) {
            double w = sum != 0 ? axis->exact[t] / sum * one : 0;
            weight[t] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
            left -= weight[t];
            largest = weight[t] > weight[largest] ? t : largest;
        }
        if (!wide)
            weight[largest] += left; /* they add up to one: white stays white */
        memset(weight + count, 0, (size_t)(axis->most - count) * sizeof *weight);
        axis->first[place] = first;
        axis->count[place] = count;
        axis->used = count > axis->used ? count : axis->used;
    }
}

/* A weight of 22 places as two parts of 11, of which the low one is not negative. */
static inline int16_t high_part(int32_t weight)
{
    return (int16_t)(weight >> PART_BITS);
}

static inline int16_t low_part(int32_t weight)
{
    return (int16_t)(weight & ((1 << PART_BITS) - 1));
}

/* `count` weights by two, each pair four times; if they are wide, their high parts and then their low ones. */
static void fill_pairs(v8s *pairs, const int32_t *w, int count, int wide)
{
    for (int t = 0; t < count; t += 2, pairs += 1 + wide) {
        const int32_t a = w[t], b = t + 1 < count ? w[t + 1] : 0;
        int16_t c = (int16_t)a, d = (int16_t)b;
        if (wide) {
            c = low_part(a), d = low_part(b);
            pairs[1] = (v8s){c, d, c, d, c, d, c, d};
            c = high_part(a), d = high_part(b);
        }
        pairs[0] = (v8s){c, d, c, d, c, d, c, d};
    }
}

/* The weights of all columns by eight, those of two outputs side by side; if they are wide, the high parts of both and
 * then the low ones. */
static void fill_eights(v8s *eights, const precise_taps *across, int n, int wide)
{
    const int n_eights = eights_of(across->used), step = 2 * (1 + wide);
    for (int x = 0; x < outputs_of(n); x++) {
        const int32_t *w = across->weight + (size_t)(x < n ? x : 0) * across->most;
        v8s *to = eights + (size_t)(x / 2) * n_eights * step + x % 2;
        for (int left = x < n ? across->used : 0, e = 0; e < n_eights; e++, w += EIGHT, left -= EIGHT, to += step) {
            const int count = left < 0 ? 0 : left < EIGHT ? left : EIGHT;
            int16_t high[EIGHT] = {0}, low[EIGHT] = {0};
            for (int t = 0; t < count; t++) {
                high[t] = wide ? high_part(w[t]) : (int16_t)w[t];
                low[t] = low_part(w[t]);
            }
            memcpy(to, high, sizeof high);
            if (wide)
                memcpy(to + 2, low, sizeof low);
        }
    }
}

/* Pair `p` of a vector of eight weights, four times. */
static inline v8s pair_of(const v8s *eight, int p)
{
    int32_t both;
    memcpy(&both, (const char *)eight + 4 * p, sizeof both);
    return (v8s)(v4){both, both, both, both};
}

/* The input of each output, as Pillow adds up its positions. */
static void find_nearest(int *place, int in, double start, double length, int out, int reverse)
{
    const double step = length / out;
    double at = start + step * 0.5;
    for (int i = 0; i < out; i++, at += step) {
        int found = (int)at;
        place[reverse ? out - 1 - i : i] = found < 0 ? 0 : found > in - 1 ? in - 1 : found;
    }
}

/* ---------------------------------------------------------------------------------------------------- arithmetic */

static inline v4u multiply_add(v8s a, v8s b)
{
#if defined(__SSE2__)
    return (v4u)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    v4u sum;
    for (int i = 0; i < 4; i++)
        sum[i] = (uint32_t)(a[2 * i] * b[2 * i]) + (uint32_t)(a[2 * i + 1] * b[2 * i + 1]);
    return sum;
#endif
}

/* Two pixels of four bytes: R R G G B B and so on. */
static inline v8s two_pixels(const unsigned char *pixels)
{
#if defined(__SSE2__)
    const __m128i both = _mm_loadl_epi64((const __m128i *)pixels);
    return (v8s)_mm_unpacklo_epi8(_mm_unpacklo_epi8(both, _mm_srli_si128(both, 4)), _mm_setzero_si128());
#else
    return (v8s){pixels[0], pixels[4], pixels[1], pixels[5], pixels[2], pixels[6], pixels[3], pixels[7]};
#endif
}

/* Eight bytes of two rows: the first four of both in turn, and the others. */
static inline void two_rows(const unsigned char *a, const unsigned char *b, v8s *first, v8s *second)
{
#if defined(__SSE2__)
    const __m128i both = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)a), _mm_loadl_epi64((const __m128i *)b));
    *first = (v8s)_mm_unpacklo_epi8(both, _mm_setzero_si128());
    *second = (v8s)_mm_unpackhi_epi8(both, _mm_setzero_si128());
#else
    *first = (v8s){a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
    *second = (v8s){a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
#endif
}

/* A sum of the high parts and one of the low parts together. */
static inline v4u joined(v4u high, v4u low, const int wide)
{
    return wide ? (high << PART_BITS) + low : high;
}

static inline v4 rounded(v4u sum, const int wide)
{
    const int bits = wide ? WIDE_BITS : NARROW_BITS;
    const uint32_t half = (uint32_t)1 << (bits - 1);
    return (v4)(sum + (v4u){half, half, half, half}) >> bits;
}

/* Eight sums as bytes. */
static inline void clipped(unsigned char *out, v4 first, v4 second)
{
#if defined(__SSE2__)
    const __m128i both = _mm_packs_epi32((__m128i)first, (__m128i)second);
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(both, both));
#else
    for (int i = 0; i < 4; i++) {
        out[i] = (unsigned char)(first[i] < 0 ? 0 : first[i] > 255 ? 255 : first[i]);
        out[i + 4] = (unsigned char)(second[i] < 0 ? 0 : second[i] > 255 ? 255 : second[i]);
    }
#endif
}

/* Eight bytes as numbers of 16 bits. */
static inline v8s eight_pixels(const unsigned char *pixels)
{
#if defined(__SSE2__)
    return (v8s)_mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)pixels), _mm_setzero_si128());
#else
    v8b in;
    memcpy(&in, pixels, sizeof in);
    return __builtin_convertvector(in, v8s);
#endif
}

/* The sum of each of four vectors. */
static inline v4u four_sums(v4u a, v4u b, v4u c, v4u d)
{
#if defined(__SSE2__)
    const __m128i ab = _mm_add_epi32(_mm_unpacklo_epi32((__m128i)a, (__m128i)b),
                                     _mm_unpackhi_epi32((__m128i)a, (__m128i)b)),
                  cd = _mm_add_epi32(_mm_unpacklo_epi32((__m128i)c, (__m128i)d),
                                     _mm_unpackhi_epi32((__m128i)c, (__m128i)d));
    return (v4u)_mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd));
#else
    return (v4u){a[0] + a[1] + a[2] + a[3], b[0] + b[1] + b[2] + b[3], c[0] + c[1] + c[2] + c[3],
                 d[0] + d[1] + d[2] + d[3]};
#endif
}

/* As Pillow converts RGB to L (ITU-R 601-2, 16 binary places). in: pixels of four bytes. */
static void gray_of_colour(unsigned char *out, const unsigned char *in, int n)
{
    int x = 0;
#if defined(__SSE2__)
    const __m128i red_blue = _mm_set1_epi32(7471 << 16 | 19595), half_green = _mm_set1_epi32(38470 / 2),
                  half = _mm_set1_epi32(0x8000), ones = _mm_set1_epi32(0xFF00FF);
    for (; x + 4 <= n; x += 4) {
        const __m128i pixels = _mm_loadu_si128((const __m128i *)(in + 4 * (size_t)x));
        const __m128i both = _mm_madd_epi16(_mm_and_si128(pixels, ones), red_blue),
                      green = _mm_madd_epi16(_mm_and_si128(_mm_srli_epi32(pixels, 8), ones), half_green);
        const __m128i sum = _mm_add_epi32(_mm_add_epi32(both, half), _mm_add_epi32(green, green));
        const __m128i words = _mm_packs_epi32(_mm_srli_epi32(sum, 16), _mm_setzero_si128());
        const int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        memcpy(out + x, &bytes, 4);
    }
#endif
    for (in += 4 * (size_t)x; x < n; x++, in += 4)
        out[x] = (unsigned char)((in[0] * 19595u + in[1] * 38470u + in[2] * 7471u + 0x8000u) >> 16);
}

/* ------------------------------------------------------------------------------------------------------ the passes */

/* The vector of output x and its first eight taps, of those by fill_eights. */
static ALWAYS_INLINE const v8s *eights_at(const v8s *eights, int x, int n_eights, const int wide)
{
    return eights + (size_t)(x / 2) * n_eights * 2 * (1 + wide) + x % 2;
}

/* in has room for 8 bytes more than its pixels. out: four bytes each. */
static ALWAYS_INLINE void resize_count_pixels(unsigned char *out, const unsigned char *in, const int *first,
                                              const v8s *eights, const int n_pairs, const int wide, int n)
{
    for (int x = 0; x < n; x++, out += 4) {
        const unsigned char *pixels = in + 4 * (size_t)first[x];
        const v8s *own = eights_at(eights, x, (n_pairs + 3) / 4, wide);
        v4u high = {0}, low = {0};
        unsigned char bytes[8];
        for (int p = 0; p < n_pairs; p++) {
            const v8s two = two_pixels(pixels + 8 * p), *weights = own + p / 4 * 2 * (1 + wide);
            high += multiply_add(two, pair_of(weights, p % 4));
            if (wide)
                low += multiply_add(two, pair_of(weights + 2, p % 4));
        }
        clipped(bytes, rounded(joined(high, low, wide), wide), (v4){0});
        memcpy(out, bytes, 4);
    }
}

/* The products of a gray output's taps, added up but for four sums. */
static ALWAYS_INLINE v4u gray_lots(const unsigned char *pixels, const v8s *eights, const int n_eights, const int wide)
{
    v4u high = {0}, low = {0};
    for (int e = 0; e < n_eights; e++, pixels += EIGHT, eights += 2 * (1 + wide)) {
        const v8s bytes = eight_pixels(pixels);
        high += multiply_add(bytes, eights[0]);
        if (wide)
            low += multiply_add(bytes, eights[2]);
    }
    return joined(high, low, wide);
}

/* n pixels and up to three more. */
static ALWAYS_INLINE void resize_count_gray(unsigned char *out, const unsigned char *in, const int *first,
                                            const v8s *eights, const int n_eights, const int wide, int n)
{
    for (int x = 0; x < n; x += OUTPUTS_AT_ONCE) {
        unsigned char bytes[8];
        v4u lots[OUTPUTS_AT_ONCE];
        for (int i = 0; i < OUTPUTS_AT_ONCE; i++)
            lots[i] = gray_lots(in + first[x + i], eights_at(eights, x + i, n_eights, wide), n_eights, wide);
        clipped(bytes, rounded(four_sums(lots[0], lots[1], lots[2], lots[3]), wide), (v4){0});
        memcpy(out + x, bytes, OUTPUTS_AT_ONCE);
    }
}

static void resize_gray(unsigned char *out, const unsigned char *in, const int *first, const v8s *eights, int n_eights,
                        int wide, int n)
{
    if (wide && n_eights == 1)
        resize_count_gray(out, in, first, eights, 1, 1, n);
    else if (wide && n_eights == 2)
        resize_count_gray(out, in, first, eights, 2, 1, n);
    else if (wide)
        resize_count_gray(out, in, first, eights, n_eights, 1, n);
    else
        resize_count_gray(out, in, first, eights, n_eights, 0, n);
}

/* Inlined for the usual numbers of pairs, so that the compiler unrolls the loop over them. */
static void resize_row(unsigned char *out, const unsigned char *in, const int *first, const v8s *eights, int count,
                       int wide, int n)
{
    if (wide)
        resize_count_pixels(out, in, first, eights, count, 1, n);
    else
        switch (count) {
        case 3: resize_count_pixels(out, in, first, eights, 3, 0, n); break;
        case 4: resize_count_pixels(out, in, first, eights, 4, 0, n); break;
        case 5: resize_count_pixels(out, in, first, eights, 5, 0, n); break;
        default: resize_count_pixels(out, in, first, eights, count, 0, n);
        }
}

/* Eight samples of an output row. */
static ALWAYS_INLINE void sum_eight(unsigned char *out, const unsigned char *const *rows, size_t at, const v8s *pairs,
                                    const int n_pairs, const int wide)
{
    v4u high_a = {0}, high_b = {0}, low_a = {0}, low_b = {0};
    for (int p = 0; p < n_pairs; p++) {
        v8s a, b;
        two_rows(rows[2 * p] + at, rows[2 * p + 1] + at, &a, &b);
        high_a += multiply_add(a, pairs[p * (1 + wide)]);
        high_b += multiply_add(b, pairs[p * (1 + wide)]);
        if (wide) {
            low_a += multiply_add(a, pairs[2 * p + 1]);
            low_b += multiply_add(b, pairs[2 * p + 1]);
        }
    }
    clipped(out, rounded(joined(high_a, low_a, wide), wide), rounded(joined(high_b, low_b, wide), wide));
}

/* The weighted rows as n samples of out, which has room for 8 more, as the rows have. */
static void sum_precise_samples(unsigned char *out, const unsigned char *const *rows, const v8s *pairs, int n_pairs,
                                int wide, int n)
{
    for (int i = 0; i < n; i += 8)
        if (wide)
            sum_eight(out + i, rows, (size_t)i, pairs, n_pairs, 1);
        else
            sum_eight(out + i, rows, (size_t)i, pairs, n_pairs, 0);
}

/* Pixels of four bytes to ones of three. */
static void pack_pixels(unsigned char *out, const unsigned char *in, int n)
{
    for (int x = 0; x < n - 1; x++)
        memcpy(out + 3 * (size_t)x, in + 4 * (size_t)x, 4); /* the fourth byte is overwritten by the next pixel */
    memcpy(out + 3 * (size_t)(n - 1), in + 4 * (size_t)(n - 1), 3);
}

/* The weighted rows as n pixels of out. All rows have room for 8 bytes more than their pixels; out has not. */
static ALWAYS_INLINE void sum_count_precise(unsigned char *out, const unsigned char *const *rows, const v8s *pairs,
                                            const int n_pairs, const int samples, const int wide, int n)
{
    unsigned char bytes[8];
    int x = 0;
    if (samples == 1) {
        for (; x + 8 <= n; x += 8)
            sum_eight(out + x, rows, (size_t)x, pairs, n_pairs, wide);
        if (x < n) {
            sum_eight(bytes, rows, (size_t)x, pairs, n_pairs, wide);
            memcpy(out + x, bytes, (size_t)(n - x));
        }
        return;
    }
    for (; x + 2 < n; x += 2, out += 6) {
        sum_eight(bytes, rows, 4 * (size_t)x, pairs, n_pairs, wide);
        memcpy(out, bytes, 4); /* the fourth byte is overwritten by the next pixel */
        memcpy(out + 3, bytes + 4, 4);
    }
    sum_eight(bytes, rows, 4 * (size_t)x, pairs, n_pairs, wide);
    memcpy(out, bytes, 3);
    if (x + 1 < n)
        memcpy(out + 3, bytes + 4, 3);
}

static void sum_precise_rows(unsigned char *out, const unsigned char *const *rows, const v8s *pairs, int n_pairs,
                             int samples, int wide, int n)
{
    if (samples == 1 && wide)
        sum_count_precise(out, rows, pairs, n_pairs, 1, 1, n);
    else if (samples == 1)
        sum_count_precise(out, rows, pairs, n_pairs, 1, 0, n);
    else if (wide)
        sum_count_precise(out, rows, pairs, n_pairs, 4, 1, n);
    else
        sum_count_precise(out, rows, pairs, n_pairs, 4, 0, n);
}

static void take_nearest(unsigned char *out, const unsigned char *in, const int *columns, int channels, int n)
{
    if (channels == 1) {
        for (int x = 0; x < n; x++)
            out[x] = in[columns[x]];
        return;
    }
    for (int x = 0; x < n - 1; x++, out += 3)
        memcpy(out, in + 4 * (size_t)columns[x], 4); /* the fourth byte is overwritten by the next pixel */
    memcpy(out, in + 4 * (size_t)columns[n - 1], 3);
}
#endif
