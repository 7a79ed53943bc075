/* The inner loops of the resize by the best vectors that the processor has: the same bits from all of them. */
#ifndef SHARDKIT_PIXELS_BEST_H
#define SHARDKIT_PIXELS_BEST_H

#include "vnni.h"

/* The longest vectors that are used. */
static inline int best_vectors(void)
{
#ifdef AVX2
    return has_vnni() ? VECTORS_VNNI : has_avx2() ? VECTORS_AVX2 : VECTORS_SHORT;
#else
    return VECTORS_SHORT;
#endif
}

static void best_sum_rows(uint16_t *sum, const unsigned char *const *rows, const uint16_t *weight, int count, int n)
{
#ifdef AVX2
    if (has_avx2()) {
        sum_rows_avx2(sum, rows, weight, count, n);
        return;
    }
#endif
    sum_rows(sum, rows, weight, count, n);
}

static void best_sum_pixels_rgb(unsigned char *out, const uint16_t *sums, const int *first, const v8 *pairs, int count,
                                int n)
{
    int done = 0;
#ifdef AVX2
    if (has_avx2())
        done = sum_pixels_avx2(out, sums, first, pairs, count, n);
#endif
    sum_pixels_rgb(out + 3 * (size_t)done, sums, first + done, pairs + (size_t)done * count, count, n - done);
}

/* For n pixels and up to three more. */
static void best_resize_row(unsigned char *out, const unsigned char *in, const int *first, const v8s *eights, int count,
                            int wide, int n)
{
#ifdef AVX2
    if (has_avx2()) {
        resize_row_avx2(out, in, first, eights, count, wide, n);
        return;
    }
#endif
    resize_row(out, in, first, eights, count, wide, n);
}

static void best_sum_samples(unsigned char *out, const unsigned char *const *rows, const v8s *pairs, int n_pairs,
                             int wide, int n)
{
#ifdef AVX2
    if (has_avx2()) {
        sum_samples_avx2(out, rows, pairs, n_pairs, wide, n);
        return;
    }
#endif
    sum_precise_samples(out, rows, pairs, n_pairs, wide, n);
}

static void best_sum_precise_rows(unsigned char *out, const unsigned char *const *rows, const v8s *pairs, int n_pairs,
                                  int samples, int wide, int n)
{
#ifdef AVX2
    if (has_avx2()) {
        sum_precise_avx2(out, rows, pairs, n_pairs, samples, wide, n);
        return;
    }
#endif
    sum_precise_rows(out, rows, pairs, n_pairs, samples, wide, n);
}
#endif
