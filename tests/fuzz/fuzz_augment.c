/* libFuzzer target for the warp of augmentation (shardkit/native/include/augment_warp.h); run.sh builds and runs it.
 *
 * An input is a size (2 bytes), a byte of switches, one for the channels, eight doubles (matrix, cval, scale), and after
 * them the samples, over and over. Image and result have blocks of memory of their own, so that an access outside is
 * seen. Without an exact sum the result must be that of the exact one but for rounding. */
#include "../../shardkit/native/include/augment_warp.h"

#include <stdlib.h>

enum { SWITCHES = 4, NUMBERS = 8, HEAD = SWITCHES + NUMBERS * sizeof(double) };

static void *filled(const uint8_t *data, size_t size, ptrdiff_t count, int bytes)
{
    uint8_t *samples = malloc((size_t)count * (bytes ? 1 : sizeof(float)));
    if (samples == NULL)
        abort();
    for (ptrdiff_t i = 0; i < count; i++) {
        uint8_t value = size ? data[(size_t)i % size] : (uint8_t)i;
        if (bytes)
            samples[i] = value;
        else
            ((float *)samples)[i] = (float)value;
    }
    return samples;
}

static void require_near(const float *one, const float *other, ptrdiff_t count, double scale)
{
    for (ptrdiff_t i = 0; i < count; i++)
        if (fabs((double)one[i] - (double)other[i]) > 1e-3 * fabs(scale))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    job self = {0};
    double numbers[NUMBERS];
    if (size < HEAD)
        return 0;
    int of_bytes = data[2] & 1, bytes = data[2] >> 1 & 1;
    self.height = data[0] % 64 + 1;
    self.width = data[1] % 64 + 1;
    self.channels = data[3] % 5 + 1;
    self.order = data[2] >> 2 & 1;
    self.flip_rows = data[2] >> 3 & 1;
    self.flip_columns = data[2] >> 4 & 1;
    self.fill = data[2] >> 5 & 3;
    self.exact = data[2] >> 7;
    memcpy(numbers, data + SWITCHES, sizeof numbers);
    memcpy(self.matrix, numbers, sizeof self.matrix);
    self.cval = fabs(numbers[6]) < 1e6 ? numbers[6] : 0;
    self.scale = fabs(numbers[7]) < 1e6 ? (float)numbers[7] : 1;
    ptrdiff_t count = self.height * self.width * self.channels;
    void *image = filled(data + HEAD, size - HEAD, count, of_bytes);
    void *out = filled(NULL, 0, count, bytes);
    warp_image(image, of_bytes, out, bytes, &self);
    if (!bytes && fabs(self.cval) < 300) {
        void *other = filled(NULL, 0, count, bytes);
        self.exact = !self.exact;
        warp_image(image, of_bytes, other, bytes, &self);
        require_near(out, other, count, self.scale);
        free(other);
    }
    free(out);
    free(image);
    return 0;
}
