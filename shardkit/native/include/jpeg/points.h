/* The seek points of an image, found in one walk over its scan: no pixels are decoded. jpeg/seek.h says what they are.
 *
 * Where they are: in every row of MCUs, denser on the left, since a random crop begins there more often: so the fewest
 * MCUs are stepped over. As many as the bytes allow; with less than one in a row, at the left edge of every second,
 * fourth … row.
 */
#ifndef SHARDKIT_JPEG_POINTS_H
#define SHARDKIT_JPEG_POINTS_H

#include "skip.h"

/* The columns of n points in a row of MCUs. Near to the places with the shortest way to the left edge of a
 * RandomResizedCrop (torchvision's defaults): 0, and then up to 8/15 of the width, at growing distances. */
static uint32_t place_columns(uint32_t *column, uint32_t n, uint32_t mcus)
{
    uint32_t count = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)(mcus * i * (i + n) * 4 / (15 * (uint64_t)n * n));
        if (count == 0 || at > column[count - 1])
            column[count++] = at;
    }
    return count;
}

/* The points of a layout among those of all MCUs. */
static int choose_points(seek_points *points, const seek_point *all, uint32_t mcus, uint32_t rows, uint32_t step,
                         uint32_t columns)
{
    points->step = step;
    points->columns = place_columns(points->column, columns, mcus);
    points->rows = (rows - 1) / step + 1;
    if (!seek_reserve(points, (size_t)points->rows * points->columns))
        return 0;
    for (size_t i = 0; i < points->count; i++)
        points->at[i] = all[mcu_of_point(points, i, mcus)];
    return 1;
}

/* The place of every MCU of the scan. 0 if a DC value is larger than a coefficient can be. */
static int walk_scan(decoder *self, seek_point *all, uint32_t count)
{
    entropy *scan = &self->scan.scan;
    int dc[D_MAX_BLOCKS_IN_MCU];
    for (uint32_t i = 0; i < count; i++) {
        all[i].bit = bit_position(scan);
        for (int c = 0; c < SEEK_COMPONENTS; c++) {
            all[i].value[c] = (int16_t)scan->value[c];
            if (scan->value[c] != all[i].value[c])
                return 0;
        }
        step_mcu(self, dc);
    }
    return 1;
}

/* The points in the form of an index, in at most `room` bytes; how many bytes. */
static size_t fit_points(seek_points *points, const seek_point *all, const struct jpeg_decompress_struct *jpeg,
                         uint32_t crc, unsigned char *out, size_t room)
{
    const uint32_t mcus = jpeg->MCUs_per_row, rows = jpeg->MCU_rows_in_scan;
    uint64_t bits = 0;
    uint32_t columns = SEEK_COLUMNS / 2;
    if (!choose_points(points, all, mcus, rows, 1, columns))
        return 0;
    for (int s = 0; s <= jpeg->comps_in_scan; s++)
        bits += rice_bits(points, s, choose_rice(points, s));
    columns = (uint32_t)(8 * (uint64_t)room * columns / (bits + 1)) + 1; /* about as many as there is room for */
    columns = columns < SEEK_COLUMNS ? columns : SEEK_COLUMNS;
    for (uint32_t step = 1; step < rows; columns > 1 ? columns-- : (step *= 2)) {
        if (!choose_points(points, all, mcus, rows, step, columns))
            return 0;
        size_t bytes = write_points(points, jpeg->comps_in_scan, crc, out, room);
        if (bytes > 0)
            return bytes;
    }
    return 0;
}

/* The seek points of a JPEG in at most `room` bytes of out. How many bytes; 0 if it has none: it is not a baseline image
 * of one scan, is damaged, or is too small for the room. */
static size_t find_points(decoder *self, const unsigned char *data, size_t size, uint32_t crc, const settings *set,
                          unsigned char *out, size_t room)
{
    j_decompress_ptr jpeg = &self->jpeg;
    seek_point *volatile all = NULL;
    size_t bytes = 0, frame = 0;
    int height = 0, width = 0;
    room = room < SEEK_BYTES ? room : SEEK_BYTES;
    if (find_frame(data, size, &height, &width, &frame) != NULL || (double)height * width > set->max_pixels ||
        data[frame + 1] == 0xC2 || size >= UINT32_MAX / 8)
        return 0;
    self->max_scans = set->max_scans;
    forget_tables(self);
    if (setjmp(self->on_error)) {
        jpeg_abort_decompress(jpeg);
        free(all);
        return 0;
    }
    jpeg_mem_src(jpeg, data, (unsigned long)size);
    jpeg_read_header(jpeg, TRUE);
    if (!jpeg->progressive_mode && !jpeg->arith_code && jpeg->comps_in_scan == jpeg->num_components &&
        jpeg->num_components <= SEEK_COMPONENTS) {
        jpeg->mem->max_memory_to_use = (long)(8 * set->max_pixels + (64 << 20));
        jpeg_start_decompress(jpeg);
        replace_entropy_decoder(jpeg, 0, (int)jpeg->output_width, NULL, 0);
        const uint64_t count = (uint64_t)jpeg->MCUs_per_row * jpeg->MCU_rows_in_scan;
        if (count <= SEEK_MCUS && count > 0 && prepare_skips(self) && (all = malloc(count * sizeof *all)) != NULL &&
            walk_scan(self, all, (uint32_t)count))
            bytes = fit_points(&self->scan.points, all, jpeg, crc, out, room);
    }
    jpeg_abort_decompress(jpeg);
    free(all);
    return bytes;
}
#endif
