/* What a small gray picture says of its image: a perceptual hash, brightness, sharpness and entropy.
 *
 * images/quality/quality.py is the twin in Python and says what they mean; both give the same bits. The sums are whole numbers,
 * and the few operations on fractions come in the same order.
 */
#ifndef SHARDKIT_PIXELS_QUALITY_H
#define SHARDKIT_PIXELS_QUALITY_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum {
    GRID = 32,      /* cells of the hash's grid, each way */
    HASH_BITS = 64, /* coefficients */
    HASH_SIDE = 11, /* of so many frequencies each way */
    CELL_SCALE = 16,
};

/* pixels: row after row. scale: of an image of `image_height` rows, a pixel covers so many each way, the last ones less.
 * orientation: as in EXIF. */
typedef struct {
    const uint8_t *pixels;
    int height, width, scale, image_height, image_width, orientation;
} small_picture;

typedef struct {
    uint64_t hash;
    float brightness, sharpness, entropy;
} quality;

/* 4096 cos(pi k / 64) */
static const int cosines[2 * GRID + 1] = {
    4096,  4091,  4076,  4052,  4017,  3973,  3920,  3857,  3784,  3703,  3612,  3513,  3406,
    3290,  3166,  3035,  2896,  2751,  2598,  2440,  2276,  2106,  1931,  1751,  1567,  1380,
    1189,  995,   799,   601,   401,   201,   0,     -201,  -401,  -601,  -799,  -995,  -1189,
    -1380, -1567, -1751, -1931, -2106, -2276, -2440, -2598, -2751, -2896, -3035, -3166, -3290,
    -3406, -3513, -3612, -3703, -3784, -3857, -3920, -3973, -4017, -4052, -4076, -4091, -4096,
};

static int32_t cosine(int x, int u)
{
    const int k = (2 * x + 1) * u % (4 * GRID);
    return cosines[k <= 2 * GRID ? k : 4 * GRID - k];
}

/* How much of the image's rows (or columns) pixel `at` and cell `cell` have in common, times GRID. */
static int64_t common(int64_t at, int64_t cell, int64_t scale, int64_t size)
{
    const int64_t begin = at * scale * GRID, end = (at + 1) * scale < size ? begin + scale * GRID : size * GRID;
    const int64_t low = cell * size, high = low + size;
    return (end < high ? end : high) - (begin > low ? begin : low);
}

/* The mean of each cell of the image, times CELL_SCALE; sums: room for a row of the picture. */
static void fill_grid(const small_picture *of, int64_t *sums, int32_t grid[GRID][GRID])
{
    const int64_t area = (int64_t)of->image_height * of->image_width;
    for (int i = 0, y = 0; i < GRID; i++) {
        memset(sums, 0, (size_t)of->width * sizeof *sums);
        while (y > 0 && common(y - 1, i, of->scale, of->image_height) > 0)
            y--;
        for (; y < of->height; y++) {
            const int64_t weight = common(y, i, of->scale, of->image_height);
            const uint8_t *row = of->pixels + (size_t)y * of->width;
            if (weight <= 0)
                break;
            for (int x = 0; x < of->width; x++)
                sums[x] += weight * row[x];
        }
        for (int j = 0, x = 0; j < GRID; j++) {
            int64_t cell = 0, weight;
            while (x > 0 && common(x - 1, j, of->scale, of->image_width) > 0)
                x--;
            for (; x < of->width && (weight = common(x, j, of->scale, of->image_width)) > 0; x++)
                cell += weight * sums[x];
            grid[i][j] = (int32_t)(cell * CELL_SCALE / area);
        }
    }
}

/* The grid of the image once it is upright. */
static void turn_grid(int32_t grid[GRID][GRID], int orientation)
{
    int32_t before[GRID][GRID];
    memcpy(before, grid, sizeof before);
    for (int i = 0; i < GRID; i++)
        for (int j = 0; j < GRID; j++) {
            const int a = orientation == 3 || orientation == 4 || orientation >= 7 ? GRID - 1 - i : i;
            const int b =
                orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7 ? GRID - 1 - j : j;
            grid[i][j] = orientation >= 5 ? before[b][a] : before[a][b];
        }
}

/* The signs of the grid's lowest frequencies, the mean left out: bit 0 first. No sum is beyond its type. */
static uint64_t hash_of(int32_t grid[GRID][GRID])
{
    int32_t half[HASH_SIDE][GRID] = {{0}};
    uint64_t hash = 0;
    int bit = 0;
    for (int u = 0; u < HASH_SIDE; u++)
        for (int i = 0; i < GRID; i++) {
            const int32_t factor = cosine(i, u);
            for (int j = 0; j < GRID; j++)
                half[u][j] += factor * grid[i][j];
        }
    for (int sum = 1; bit < HASH_BITS; sum++)
        for (int u = 0; u <= sum && bit < HASH_BITS; u++, bit++) {
            int64_t value = 0;
            for (int j = 0; j < GRID; j++)
                value += (int64_t)cosine(j, sum - u) * half[u][j];
            hash |= (uint64_t)(value > 0) << bit;
        }
    return hash;
}

/* The mean squared difference of pixels `step` apart in rows and in columns of three or more. */
static double roughness(const small_picture *of, int step)
{
    const int across = of->width > 2 ? of->width - step : 0, down = of->height > 2 ? of->height - step : 0;
    int64_t in_rows = 0, in_columns = 0;
    double sum = 0;
    for (int y = 0; y < of->height; y++) {
        const uint8_t *row = of->pixels + (size_t)y * of->width;
        for (int x = 0; x < across; x++)
            in_rows += (row[x + step] - row[x]) * (row[x + step] - row[x]);
        for (int x = 0; y < down && x < of->width; x++) {
            const int difference = row[(size_t)step * of->width + x] - row[x];
            in_columns += difference * difference;
        }
    }
    if (across > 0)
        sum += (double)in_rows / (double)((int64_t)across * of->height);
    if (down > 0)
        sum += (double)in_columns / (double)((int64_t)down * of->width);
    return sum;
}

static double sharpness_of(const small_picture *of)
{
    const double near = roughness(of, 1), far = roughness(of, 2);
    if (far <= 0)
        return near > 0;
    const double found = (4 * near / far - 1) / 3;
    return found < 0 ? 0 : found > 1 ? 1 : found;
}

/* All of it. sums: room for a row of the picture. cells: the upright grid, row by row, or NULL. */
static quality quality_of(const small_picture *of, int64_t *sums, uint16_t *cells)
{
    int32_t grid[GRID][GRID];
    int64_t counts[256] = {0}, sum = 0;
    const int64_t n = (int64_t)of->height * of->width;
    quality found;
    double information = 0;
    for (int64_t i = 0; i < n; i++)
        counts[of->pixels[i]]++;
    for (int value = 0; value < 256; value++) {
        sum += value * counts[value];
        if (counts[value])
            information += (double)counts[value] * log2((double)counts[value]);
    }
    found.brightness = (float)((double)sum / (double)(255 * n));
    found.sharpness = (float)sharpness_of(of);
    found.entropy = (float)(log2((double)n) - information / (double)n);
    fill_grid(of, sums, grid);
    if (of->orientation > 1)
        turn_grid(grid, of->orientation);
    found.hash = hash_of(grid);
    for (int i = 0; cells != NULL && i < GRID * GRID; i++)
        cells[i] = (uint16_t)grid[i / GRID][i % GRID];
    return found;
}
#endif
