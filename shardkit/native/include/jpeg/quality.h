/* The quality of a JPEG (pixels/quality.h) from its luma at a small scale.
 *
 * At 1/8 a pixel is the mean of a block, which is its DC value: of a baseline image with one scan only these are
 * decoded, and no inverse DCT is needed. Small images are decoded at 1/4, 1/2 or whole, and these and progressive ones
 * by libjpeg-turbo. What is not done here is left to Pillow, which gives the same picture (images/quality/quality.py).
 */
#ifndef SHARDKIT_JPEG_QUALITY_H
#define SHARDKIT_JPEG_QUALITY_H

#include "skip.h"
#include "../pixels/quality.h"

/* As Pillow's draft mode chooses it for a picture of at least GRID pixels each way. */
static int quality_scale(int height, int width)
{
    const int least = (height < width ? height : width) / GRID;
    return least >= 8 ? 8 : least >= 4 ? 4 : least >= 2 ? 2 : 1;
}

/* libjpeg's inverse DCT of one coefficient. Beyond its range, only in damaged files, it wraps around. */
static uint8_t pixel_of_dc(int dc, int quantum)
{
    int value = ((int)(JCOEF)dc * quantum + 4) >> 3 & 1023;
    value = value >= 512 ? value - 1024 + 128 : value + 128;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Whether every MCU begins with the blocks of the first component, and no other is finer. */
static int is_luma_first(j_decompress_ptr jpeg)
{
    return jpeg->comps_in_scan == jpeg->num_components && is_common(jpeg) && jpeg->comp_info[0].quant_table != NULL;
}

/* The picture at 1/8: the DC values of the first component. */
static void read_dc(decoder *self, uint8_t *pixels, int height, int width)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const int alone = jpeg->comps_in_scan == 1, quantum = (int16_t)jpeg->comp_info[0].quant_table->quantval[0];
    const int across = alone ? 1 : jpeg->comp_info[0].h_samp_factor,
              down = alone ? 1 : jpeg->comp_info[0].v_samp_factor;
    int dc[D_MAX_BLOCKS_IN_MCU];
    for (int top = 0; top < (int)jpeg->MCU_rows_in_scan * down; top += down)
        for (int left = 0; left < (int)jpeg->MCUs_per_row * across; left += across) {
            step_mcu(self, dc);
            for (int b = 0; b < across * down; b++) {
                const int y = top + b / across, x = left + b % across;
                if (y < height && x < width)
                    pixels[(size_t)y * width + x] = pixel_of_dc(dc[b], quantum);
            }
        }
}

static void read_gray(decoder *self, uint8_t *pixels, int width)
{
    j_decompress_ptr jpeg = &self->jpeg;
    replace_entropy_decoder(jpeg, 0, width, NULL, 0);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = pixels + (size_t)jpeg->output_scanline * width;
        jpeg_read_scanlines(jpeg, &row, 1);
    }
}

/* After jpeg_read_header. scale of the picture: 0 for the usual one. NULL, or why not. */
static const char *read_quality(decoder *self, small_picture *of, quality *found, uint16_t *cells)
{
    j_decompress_ptr jpeg = &self->jpeg;
    if ((int)jpeg->image_height != of->image_height || (int)jpeg->image_width != of->image_width || jpeg->arith_code)
        return "two frame headers";
    if (jpeg->jpeg_color_space != JCS_GRAYSCALE && jpeg->jpeg_color_space != JCS_YCbCr)
        return "another colour space";
    if (of->scale == 0)
        of->scale = quality_scale(of->image_height, of->image_width);
    jpeg->out_color_space = JCS_GRAYSCALE;
    jpeg->scale_num = 1;
    jpeg->scale_denom = (unsigned)of->scale;
    jpeg_start_decompress(jpeg);
    if (!fits(jpeg, of->image_height, of->image_width, of->scale, 1))
        return "another size than its header says";
    if (is_incomplete(jpeg))
        return "incomplete progressive image";
    of->height = (int)jpeg->output_height;
    of->width = (int)jpeg->output_width;
    const size_t sums = (size_t)of->width * sizeof(int64_t), bytes = (size_t)of->height * of->width;
    unsigned char *memory = room(&self->rows, sums + bytes); /* aligned */
    if (memory == NULL)
        return "no memory";
    of->pixels = memory + sums;
    if (of->scale == 8 && !jpeg->progressive_mode && is_luma_first(jpeg)) {
        replace_entropy_decoder(jpeg, 0, of->width, NULL, 0);
        if (!prepare_skips(self))
            return "no memory";
        read_dc(self, memory + sums, of->height, of->width);
    } else {
        read_gray(self, memory + sums, of->width);
    }
    *found = quality_of(of, (int64_t *)(void *)memory, cells);
    return NULL;
}

/* The quality of a JPEG whose EXIF orientation is given. scale: 1, 2, 4 or 8; 0 for the usual one, of its size. cells:
 * GRID * GRID numbers, or NULL. NULL, or why not. */
static const char *find_quality(decoder *self, const unsigned char *data, size_t size, int orientation, int scale,
                                const settings *set, quality *found, uint16_t *cells)
{
    j_decompress_ptr jpeg = &self->jpeg;
    small_picture of = {.orientation = orientation, .scale = scale};
    size_t frame = 0;
    const char *reason = find_frame(data, size, &of.image_height, &of.image_width, &frame);
    if (reason != NULL)
        return reason;
    if ((double)of.image_height * of.image_width > set->max_pixels)
        return "too many pixels";
    if (!has_end(data, size, frame))
        return "no end-of-image marker";
    self->max_scans = set->max_scans;
    forget_tables(self);
    if (setjmp(self->on_error)) {
        jpeg_abort_decompress(jpeg);
        return self->text;
    }
    jpeg_mem_src(jpeg, data, (unsigned long)size);
    jpeg_read_header(jpeg, TRUE);
    jpeg->mem->max_memory_to_use = (long)(8 * set->max_pixels + (64 << 20));
    reason = read_quality(self, &of, found, cells);
    jpeg_abort_decompress(jpeg);
    empty_if_large(&self->rows);
    return reason;
}
#endif
