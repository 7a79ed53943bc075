/* Steps over whole MCUs of a scan, for walks that need its DC values only (jpeg/points.h, jpeg/quality.h).
 *
 * A table says of the next SKIP_BITS bits how many whole coefficients they hold, values included: for photographs
 * about two. To fill it takes longer than the table that it is made from, so that only these walks have it.
 */
#ifndef SHARDKIT_JPEG_SKIP_H
#define SHARDKIT_JPEG_SKIP_H

#include "decoder.h"

#define SKIP_BITS 11 /* with 12 it takes longer to fill than it saves on an image of 100 KB with tables of its own */

enum {
    SKIP_LENGTH = 63, /* the bits of all these coefficients: the six that a shift looks at */
    SKIP_STEPS = 6,   /* above them, seven bits: how far they go on in the block, the end of a block as one */
    SKIP_END = 1 << 13,               /* the last is an end of block */
    SKIP_UNKNOWN = 127 << SKIP_STEPS, /* not even one is whole: farther than any block goes */
};

/* Of one AC table; the codes say of which. */
typedef struct {
    uint16_t entry[1 << SKIP_BITS];
    uint8_t bits[16], symbols[256];
    int known;
} skip_table;

typedef struct skips {
    skip_table tables[NUM_HUFF_TBLS];
} skips;

/* What the highest SKIP_BITS bits of `look` hold. */
static uint16_t skip_entry(const huffman *from, uint32_t look)
{
    unsigned length = 0, steps = 0;
    for (;;) {
        const uint32_t entry = from->entry[look >> (32 - LOOK_BITS)];
        const unsigned bits = entry & 63, zeros = ZEROS(entry);
        if (entry == 0 || length + bits > SKIP_BITS)
            break;
        if (zeros == 64) /* an end of block */
            return (uint16_t)(SKIP_END | (steps + 1) << SKIP_STEPS | (length + bits));
        if (steps + zeros + 1 > 63)
            break;
        length += bits;
        look <<= bits;
        steps += zeros + 1;
    }
    return steps ? (uint16_t)(steps << SKIP_STEPS | length) : SKIP_UNKNOWN;
}

static void fill_skips(skip_table *table, const huffman *from)
{
    if (table->known && memcmp(table->bits, from->bits, 16) == 0 && memcmp(table->symbols, from->symbols, 256) == 0)
        return;
    table->known = 1;
    memcpy(table->bits, from->bits, 16);
    memcpy(table->symbols, from->symbols, 256);
    for (uint32_t look = 0; look < 1 << SKIP_BITS; look++)
        table->entry[look] = skip_entry(from, look << (32 - SKIP_BITS));
}

/* After replace_entropy_decoder: the tables of all components. 0 if there is no memory. */
static int prepare_skips(decoder *self)
{
    if (self->skips == NULL && (self->skips = calloc(1, sizeof *self->skips)) == NULL)
        return 0;
    for (int c = 0; c < self->jpeg.comps_in_scan; c++) {
        const int number = self->jpeg.cur_comp_info[c]->ac_tbl_no;
        fill_skips(&self->skips->tables[number], &self->scan.tables[1][number]);
    }
    return 1;
}

/* As skip_ac. */
static ALWAYS_INLINE void skip_many(j_decompress_ptr jpeg, reader *in, const huffman *table, const skip_table *many)
{
    for (unsigned k = 1; k < 64;) {
        fill(in);
        for (int i = 0; i < 4; i++) { /* four times SKIP_BITS are there */
            uint32_t entry = many->entry[in->bits >> (64 - SKIP_BITS)];
            const unsigned steps = entry >> SKIP_STEPS & 127;
            if (__builtin_expect(k + steps > 64, 0)) { /* some are of the next block, or the first is a long one */
                if (i > 0) /* it must not be full already */
                    fill(in);
                entry = LOOK(in, table);
                if (entry == 0)
                    entry = long_entry(jpeg, in->bits, table, 0);
                drop(in, entry & 63);
                k += ZEROS(entry) + 1;
                break;
            }
            drop(in, entry & SKIP_LENGTH);
            k += steps;
            if (entry & SKIP_END || k == 64)
                return;
        }
    }
}

/* Steps over the next MCU. dc: the DC value of each of its blocks. */
static ALWAYS_INLINE void step_mcu(decoder *self, int *dc)
{
    j_decompress_ptr jpeg = &self->jpeg;
    entropy *scan = &self->scan.scan;
    reader in = scan->in;
    if (scan->interval && scan->restarts_left == 0)
        in = restart(jpeg, scan, in);
    scan->restarts_left--;
    for (int b = 0; b < jpeg->blocks_in_MCU; b++) {
        const int c = jpeg->MCU_membership[b];
        dc[b] = next_dc(jpeg, scan, &in, c);
        skip_many(jpeg, &in, scan->ac[c], &self->skips->tables[jpeg->cur_comp_info[c]->ac_tbl_no]);
    }
    if (in.count < in.padding)
        give_up(jpeg, "the coded data ends too early");
    scan->in = in;
    scan->done++;
}
#endif
