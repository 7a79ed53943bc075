/* A batch of images into the slots of their views, without the interpreter's lock, by the decoder of any format.
 *
 * A module includes this after a decoder (jpeg/decoder.h, png/decoder.h, webp_decoder.h) and pixels/finish.h.
 */
#ifndef SHARDKIT_PIXELS_BATCH_H
#define SHARDKIT_PIXELS_BATCH_H

#include <stdio.h>

static decoder *idle = NULL; /* decoders that no thread is using; only touched with the GIL */

static decoder *take_decoder(void)
{
    decoder *self = idle;
    if (self == NULL)
        return decoder_new();
    idle = self->next;
    return self;
}

static void give_back(decoder *self)
{
    self->next = idle;
    idle = self;
}

typedef struct {
    Py_buffer view, points; /* the image; its seek points, or nothing */
    const char *reason;
    char text[TEXT_BYTES];
} job;

/* Where the numbers for one image are in its row of draws, -1 for none. */
typedef struct {
    Py_ssize_t horizontal, vertical, crop;
} columns_of;

/* What is asked of every image, for some views that are alike: their slots are next to each other. */
typedef struct {
    settings set;
    int count;
    Py_buffer out;
    size_t slot; /* bytes */
} views_of;

/* All views of image i as the first of the decoder's. draws: a row for each of them, or NULL. */
static void ask(decoder *self, Py_ssize_t i, const views_of *asked, int kinds, const columns_of *column,
                const double *draws, Py_ssize_t columns)
{
    view *one = self->views;
    for (int kind = 0; kind < kinds; kind++)
        for (int number = 0; number < asked[kind].count; number++, one++) {
            one->set = &asked[kind].set;
            one->out =
                (unsigned char *)asked[kind].out.buf + asked[kind].slot * ((size_t)i * asked[kind].count + number);
            one->draws = draws && column->crop >= 0 ? draws + column->crop : NULL;
            one->flip = 0;
            if (draws && column->horizontal >= 0 && draws[column->horizontal] < 0.5)
                one->flip |= FLIP_HORIZONTAL;
            if (draws && column->vertical >= 0 && draws[column->vertical] < 0.5)
                one->flip |= FLIP_VERTICAL;
            draws = draws ? draws + columns : NULL;
        }
}

static void run(decoder *self, job *jobs, Py_ssize_t n, const views_of *asked, int kinds, int views, const finish *last,
                const columns_of *column, const double *draws, Py_ssize_t columns)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        if (jobs[i].view.obj == NULL)
            continue;
        ask(self, i, asked, kinds, column, draws ? draws + i * views * columns : NULL, columns);
#ifdef SHARDKIT_JPEG_DECODER_H /* no other format has seek points */
        self->points = jobs[i].points.obj ? jobs[i].points.buf : NULL;
        self->points_bytes = jobs[i].points.obj ? (size_t)jobs[i].points.len : 0;
#endif
        jobs[i].reason = decode_and_finish(self, jobs[i].view.buf, (size_t)jobs[i].view.len, views, last);
        if (jobs[i].reason != NULL) {
            snprintf(jobs[i].text, TEXT_BYTES, "%s", jobs[i].reason);
            jobs[i].reason = jobs[i].text;
        }
    }
}

static PyObject *failures_of(const job *jobs, Py_ssize_t n)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < n; i++) {
        PyObject *item;
        if (jobs[i].reason == NULL)
            continue;
        item = PyUnicode_DecodeLatin1(jobs[i].reason, (Py_ssize_t)strlen(jobs[i].reason), NULL);
        item = Py_BuildValue("(nN)", i, item);
        if (item == NULL || PyList_Append(found, item) < 0)
            Py_CLEAR(found);
        Py_XDECREF(item);
    }
    return found;
}

PyDoc_STRVAR(
    decode_batch_doc,
    "decode_batch(datas, views, how, finish, draws, columns, limits, points)\n--\n\n"
    "Each image of a sequence of bytes-like objects into its slots. The GIL is released.\n\n"
    "views: a sequence of (out, count, height, width, random): every image gets `count` slots of that size in out, a\n"
    "buffer of n * count of them. random: (scale, scale, ratio, ratio, log ratio, log ratio).\n"
    "how: (channels; crop: as the enum in resize.h; filter: as the enum in resize.h; exact; same: leave out\n"
    "images of another size; tall: columns first in tall images).\n"
    "finish: (bytes of a value, planar, table, padding, fill) as in finish.h; table and fill are bytes-like.\n"
    "draws: None or float64 (n, views, count). columns: those of the horizontal flip, the vertical flip (below 1/2\n"
    "means flipped) and the first of the crop, -1 for none. limits: (headroom, max_pixels, max_scans).\n"
    "points: None, or for each image its seek points, as seek_points gives them, or None. Wrong ones are not used.\n"
    "None as data is left out. Returns [(index, reason)] of those that were not decoded; what their slots hold is\n"
    "undefined.");

static int settings_are_possible(const settings *set, const finish *last)
{
    return set->height >= 1 && set->width >= 1 && set->height <= 65535 && set->width <= 65535 &&
           (set->channels == 1 || set->channels == 3) && set->crop >= CROP_RESIZE && set->crop <= CROP_RANDOM_COVER &&
           set->filter >= 0 && set->filter < FILTERS && (last->item == 1 || last->item == 2 || last->item == 4) &&
           last->padding >= 0 && last->padding <= 65535;
}

/* Whether the numbers that are drawn from are there for each of n views. */
static int draws_fit(const Py_buffer *draws, Py_ssize_t n, Py_ssize_t columns, const columns_of *column,
                     const settings *set, const finish *last)
{
    int placed = set->crop == CROP_RANDOM_COVER || last->padding;
    Py_ssize_t crop = set->crop == CROP_RANDOM ? RANDOM_DRAWS : placed ? PLACE_DRAWS : 0;
    if (draws->obj == NULL)
        return !crop;
    return draws->len == n * columns * (Py_ssize_t)sizeof(double) && column->horizontal < columns &&
           column->vertical < columns && (!crop || (column->crop >= 0 && column->crop + crop <= columns));
}

/* The buffers of each image and of its points. 0 with an exception. */
static int get_jobs(PyObject *items, PyObject *points, Py_ssize_t n, job *jobs)
{
    if (points != NULL && PyTuple_Size(points) != n) {
        PyErr_SetString(PyExc_ValueError, "the points do not fit the images");
        return 0;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyTuple_GetItem(items, i), *own = points ? PyTuple_GetItem(points, i) : Py_None;
        if (item == Py_None)
            jobs[i].reason = "left out";
        else if (PyObject_GetBuffer(item, &jobs[i].view, PyBUF_SIMPLE) < 0)
            return 0;
        if (own != Py_None && PyObject_GetBuffer(own, &jobs[i].points, PyBUF_SIMPLE) < 0)
            return 0;
    }
    return 1;
}

/* One of `views`, for n images; `set` has what is the same for all. 0 with an exception. */
static int get_views(PyObject *item, const settings *set, const finish *last, Py_ssize_t n, views_of *asked)
{
    settings *own = &asked->set;
    *own = *set;
    if (!PyArg_ParseTuple(item, "w*iii(dddddd)", &asked->out, &asked->count, &own->height, &own->width, &own->scale[0],
                          &own->scale[1], &own->ratio[0], &own->ratio[1], &own->log_ratio[0], &own->log_ratio[1]))
        return 0;
    if (!settings_are_possible(own, last) || asked->count < 1 || asked->count > MOST_VIEWS) {
        PyErr_SetString(PyExc_ValueError, "impossible settings");
        return 0;
    }
    asked->slot = (size_t)own->height * own->width * own->channels * last->item;
    if (asked->out.len % (Py_ssize_t)asked->slot || asked->out.len / (Py_ssize_t)asked->slot != n * asked->count ||
        (uintptr_t)asked->out.buf % (size_t)last->item) {
        PyErr_SetString(PyExc_ValueError, "out and views do not fit the images");
        return 0;
    }
    return 1;
}

static PyObject *py_decode_batch(PyObject *module, PyObject *args)
{
    PyObject *datas, *views_object, *draws_object, *table_object, *points_object;
    PyObject *items = NULL, *kinds_of = NULL, *points = NULL, *result = NULL;
    Py_buffer draws = {0}, table = {0}, fill = {0};
    settings set = {0};
    finish last;
    columns_of column;
    Py_ssize_t n = 0, columns = 0, kinds = 0, views = 0;
    views_of *asked = NULL;
    job *jobs = NULL;
    decoder *self = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO(iiippp)(ipOiy*)O(nnn)(ddi)O", &datas, &views_object, &set.channels, &set.crop,
                          &set.filter, &set.exact, &set.same, &set.tall, &last.item, &last.planar, &table_object,
                          &last.padding, &fill, &draws_object, &column.horizontal, &column.vertical, &column.crop,
                          &set.headroom, &set.max_pixels, &set.max_scans, &points_object))
        return NULL;
    if (points_object != Py_None && (points = PySequence_Tuple(points_object)) == NULL)
        goto end;
    if ((items = PySequence_Tuple(datas)) == NULL || (kinds_of = PySequence_Tuple(views_object)) == NULL)
        goto end;
    n = PyTuple_Size(items);
    kinds = PyTuple_Size(kinds_of);
    if (draws_object != Py_None && PyObject_GetBuffer(draws_object, &draws, PyBUF_C_CONTIGUOUS) < 0)
        goto end;
    if (table_object != Py_None && PyObject_GetBuffer(table_object, &table, PyBUF_C_CONTIGUOUS) < 0)
        goto end;
    last.table = table.obj ? table.buf : NULL;
    asked = PyMem_Calloc((size_t)(kinds ? kinds : 1), sizeof *asked);
    if (asked == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (Py_ssize_t kind = 0; kind < kinds; kind++) {
        if (!get_views(PyTuple_GetItem(kinds_of, kind), &set, &last, n, &asked[kind]))
            goto end;
        views += asked[kind].count;
    }
    columns = draws.obj && n && views ? draws.len / (Py_ssize_t)sizeof(double) / n / views : 0;
    if (views < 1 || views > MOST_VIEWS || (n && !draws_fit(&draws, n * views, columns, &column, &set, &last)) ||
        fill.len != set.channels ||
        (table.obj ? table.len != (Py_ssize_t)256 * set.channels * last.item : last.item != 1) ||
        (uintptr_t)last.table % (size_t)last.item) {
        PyErr_SetString(PyExc_ValueError, "views, draws, table or fill do not fit the images");
        goto end;
    }
    memcpy(last.fill, fill.buf, (size_t)fill.len);
    jobs = PyMem_Calloc((size_t)(n ? n : 1), sizeof *jobs);
    self = take_decoder();
    if (jobs == NULL || self == NULL || !views_for(self, (int)views)) {
        PyErr_NoMemory();
        goto end;
    }
    if (!get_jobs(items, points, n, jobs))
        goto end;
    Py_BEGIN_ALLOW_THREADS
    run(self, jobs, n, asked, (int)kinds, (int)views, &last, &column, draws.buf, columns);
    Py_END_ALLOW_THREADS
    result = failures_of(jobs, n);
end:
    if (self != NULL)
        give_back(self);
    for (Py_ssize_t i = 0; jobs != NULL && i < n; i++) {
        if (jobs[i].view.obj != NULL)
            PyBuffer_Release(&jobs[i].view);
        if (jobs[i].points.obj != NULL)
            PyBuffer_Release(&jobs[i].points);
    }
    for (Py_ssize_t kind = 0; asked != NULL && kind < kinds; kind++)
        if (asked[kind].out.obj != NULL)
            PyBuffer_Release(&asked[kind].out);
    PyMem_Free(jobs);
    PyMem_Free(asked);
    if (draws.obj != NULL)
        PyBuffer_Release(&draws);
    if (table.obj != NULL)
        PyBuffer_Release(&table);
    PyBuffer_Release(&fill);
    Py_XDECREF(points);
    Py_XDECREF(kinds_of);
    Py_XDECREF(items);
    return result;
}

PyDoc_STRVAR(
    allow_vectors_doc,
    "allow_vectors(most)\n--\n\n"
    "Which vectors may be used, where the processor has them: 0 those that all have, 1 AVX2 too, 2 VNNI too. For\n"
    "the test that compares them. Returns the best of them that are used.");

static PyObject *py_allow_vectors(PyObject *module, PyObject *most)
{
    long given = PyLong_AsLong(most);
    (void)module;
    if (given == -1 && PyErr_Occurred())
        return NULL;
    vectors_allowed = given < VECTORS_SHORT ? VECTORS_SHORT : given > VECTORS_VNNI ? VECTORS_VNNI : (int)given;
    return PyLong_FromLong(best_vectors());
}

static void free_module(void *module)
{
    (void)module;
    while (idle != NULL) {
        decoder *self = idle;
        idle = self->next;
        decoder_free(self);
    }
}
#endif
