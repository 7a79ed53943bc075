/* libFuzzer target for the parts of the reader of lists in C that need no Python (shardkit/native/include/lists): the paths of
 * a list, the numbers and the order of its texts. run.sh builds and runs it.
 *
 * An input is a byte of switches, two lengths (of root and extensions), their bytes, and texts between line feeds.
 */
#define _GNU_SOURCE
#include "../../shardkit/native/include/lists/paths.h"

static const uint64_t SECRET[2] = {0x0123456789abcdefu, 0xfedcba9876543210u};

static void *room(size_t size)
{
    void *found = malloc(size ? size : 1);
    if (found == NULL)
        abort();
    return found;
}

static int within(const int64_t *offsets, int64_t count, int64_t length)
{
    for (int64_t row = 0; row < count; row++)
        if (offsets[row] > offsets[row + 1])
            return 0;
    return offsets[0] == 0 && offsets[count] <= length;
}

static void check_paths(const StringColumn *column, String root, const char *wanted, size_t wanted_length)
{
    const size_t bytes = (size_t)paths_room(column, root.length), rows = ((size_t)column->count + 1) * sizeof(int64_t);
    plain_paths found = {room(bytes), room(bytes), room(rows), room(rows), 0, 0};
    if (take_paths(column, root, wanted, wanted_length, SECRET, &found) == PATHS_PLAIN) {
        if (!within(found.real_offsets, column->count, (int64_t)bytes) ||
            !within(found.name_offsets, column->count, (int64_t)bytes))
            abort();
        const StringColumn names = {found.names, found.name_offsets, (int64_t)bytes, column->count},
                           real = {found.real, found.real_offsets, (int64_t)bytes, column->count};
        if (are_distinct(&names, SECRET) != 1 || are_distinct(&real, SECRET) != 1)
            abort();
        open_folder folder = {.length = 0, .fd = -1};
        for (int64_t row = 0; row < column->count; row++) {
            String path;
            if (!string_at(&real, row, &path) || file_size(&folder, path) > 0)
                abort();
        }
        if (folder.fd >= 0)
            close(folder.fd);
    }
    free(found.real);
    free(found.names);
    free(found.real_offsets);
    free(found.name_offsets);
}

static void check_numbers(const StringColumn *column, int stop)
{
    int32_t *codes = room((size_t)column->count * sizeof *codes);
    int64_t *firsts = room(CODES_MOST * sizeof *firsts);
    const int64_t count = number_texts(column, SECRET, stop, codes, firsts);
    if (count < 1 || count > column->count)
        abort();
    if (stop < 0 && (count == column->count) != (are_distinct(column, SECRET) == 1))
        abort();
    for (int64_t row = 0; row < column->count; row++)
        if (codes[row] < 0 || codes[row] >= count || firsts[codes[row]] > row)
            abort();
    free(codes);
    free(firsts);
}

static void check_order(const StringColumn *column)
{
    ordered_file *files = room((size_t)column->count * sizeof *files);
    for (int64_t row = 0; row < column->count; row++) {
        String path;
        if (!string_at(column, row, &path))
            abort();
        files[row] = (ordered_file){path, folder_of(path), (int32_t)(path.length % 3), row};
    }
    sort_files(files, (size_t)column->count);
    for (int64_t row = 1; row < column->count; row++)
        if (compare_files(files + row - 1, files + row) >= 0)
            abort();
    free(files);
}

/* Offsets of any value: those outside the column must be seen. */
static void check_offsets(const uint8_t *data, size_t size)
{
    const size_t count = size / sizeof(int64_t);
    if (count == 0)
        return;
    int64_t *offsets = room(count * sizeof *offsets);
    memcpy(offsets, data, count * sizeof *offsets);
    for (size_t at = 0; at < count; at++)
        offsets[at] = offsets[at] % (int64_t)(size + 2) - (offsets[at] % 5 == 0);
    const StringColumn column = {(const char *)data, offsets, (int64_t)size, (int64_t)count - 1};
    are_distinct(&column, SECRET);
    free(offsets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || size < 3 + (size_t)data[1] % 8 + data[2] % 8)
        return 0;
    const size_t root_length = data[1] % 8, wanted_length = data[2] % 8, rest = size - 3 - root_length - wanted_length;
    char *root = room(root_length + 1), *wanted = room(wanted_length + 1), *texts = room(rest);
    memcpy(root, data + 3, root_length);
    root[root_length] = '/';
    memcpy(wanted, data + 3 + root_length, wanted_length);
    wanted[wanted_length] = 0;
    memcpy(texts, data + size - rest, rest);
    int64_t *offsets = room((rest + 2) * sizeof *offsets);
    StringColumn column = {texts, offsets, (int64_t)rest, 0};
    offsets[0] = 0;
    for (size_t at = 0; at < rest; at++)
        if (texts[at] == '\n')
            offsets[++column.count] = (int64_t)at;
    offsets[++column.count] = (int64_t)rest;
    check_paths(&column, (String){root, root_length + 1}, wanted, wanted_length + 1);
    check_numbers(&column, data[0] & 1 ? '/' : -1);
    check_order(&column);
    check_offsets(data, size);
    free(offsets);
    free(root);
    free(wanted);
    free(texts);
    return 0;
}
