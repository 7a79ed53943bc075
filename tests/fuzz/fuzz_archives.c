/* libFuzzer target for the parts of the reader of archives in C that need no Python (shardkit/native/include/archives):
 * members of a tar, entries of a zip's directory, and the folders and images in a list of names. run.sh builds and runs it.
 *
 * An input is a byte of switches, the place to begin, and the bytes of the archive. What is read must lie within it.
 */
#define _GNU_SOURCE /* for memfd_create */
#include <sys/mman.h>

#include "../../shardkit/native/include/archives/folders.h"
#include "../../shardkit/native/include/archives/tar.h"
#include "../../shardkit/native/include/archives/zip.h"

enum { HEAD = 2 };

static const member_limits LIMITS = {64, TAR_PATH, 20, 100000, 1000};

static int is_before(int64_t at, int64_t end)
{
    return at >= 0 && at <= end;
}

static void check(const member_columns *found, int64_t size, int whole)
{
    size_t used = 0;
    for (size_t at = 0; at < found->count; at++) {
        const int64_t *numbers = found->numbers + at * MEMBER_COLUMNS;
        const char *name = found->names + used;
        const size_t length = (size_t)found->lengths[at];
        used += length;
        if (used > found->used || length == 0 || name[0] == '/' || name[length - 1] == '/' || memchr(name, 0, length))
            abort();
        for (size_t place = 0; place + 1 < length; place++)
            if (name[place] == '.' && name[place + 1] == '.')
                abort();
        if (whole && (!is_before(numbers[1], size) || !is_before(numbers[0], size - numbers[1])))
            abort();
    }
    if (used != found->used)
        abort();
}

static void read_tar(const uint8_t *data, size_t size, int64_t at)
{
    static int fd = -1;
    static tar_file file;
    member_columns found = {0};
    if (fd < 0 && (fd = memfd_create("archive", 0)) < 0)
        abort();
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        return;
    file.fd = fd;
    file.size = (int64_t)size;
    file.first = 0;
    file.held = 0;
    const int64_t stop = tar_members(&file, at, &LIMITS, &found);
    if (stop < at)
        abort();
    check(&found, (int64_t)size, 1);
    members_free(&found);
}

static void read_zip(const uint8_t *data, size_t size, size_t at)
{
    member_columns found = {0};
    const int64_t stop = zip_members(data, size, at, 1000, &LIMITS, &found);
    if (stop < (int64_t)at || stop > (int64_t)size)
        abort();
    check(&found, 0, 0);
    members_free(&found);
}

/* The input as names between line feeds. */
static void list(const uint8_t *data, size_t size)
{
    const char wanted[] = "jpg\0JPG\0p";
    int64_t *offsets = malloc((size + 2) * sizeof *offsets), *starts = malloc((size + 2) * sizeof *starts);
    folder_file *files = malloc((size + 2) * sizeof *files);
    if (offsets == NULL || starts == NULL || files == NULL)
        abort();
    StringColumn names = {(const char *)data, offsets, (int64_t)size, 0};
    offsets[0] = 0;
    for (size_t at = 0; at < size; at++)
        if (data[at] == '\n')
            offsets[++names.count] = (int64_t)at;
    offsets[++names.count] = (int64_t)size;
    const int64_t folders = folder_starts(&names, starts);
    if (folders < 1 || folders > names.count)
        abort();
    for (int64_t row = 0; row < names.count; row++) {
        String name;
        if (!string_at(&names, row, &name))
            abort();
        files[row] = (folder_file){name, row};
    }
    if (sort_images(files, (size_t)names.count, wanted, sizeof wanted) > names.count)
        abort();
    free(files);
    free(starts);
    free(offsets);
}

/* Correct the checksums of all blocks, which no mutation finds. */
static void sign(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
        unsigned sum = 8 * ' ';
        for (size_t place = 0; place < TAR_BLOCK; place++)
            sum += place >= 148 && place < 156 ? 0 : data[at + place];
        for (int digit = 5; digit >= 0; digit--, sum >>= 3)
            data[at + 148 + (size_t)digit] = (uint8_t)('0' + (sum & 7));
        data[at + 154] = 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= HEAD)
        return 0;
    uint8_t *copy = malloc(size - HEAD); /* of its own, so that an access outside is seen */
    if (copy == NULL)
        abort();
    memcpy(copy, data + HEAD, size - HEAD);
    read_zip(copy, size - HEAD, data[1] % (size - HEAD));
    list(copy, size - HEAD);
    if (data[0] & 1)
        sign(copy, size - HEAD);
    read_tar(copy, size - HEAD, data[0] & 2 ? TAR_BLOCK * (data[1] % 4) : 0);
    free(copy);
    return 0;
}
