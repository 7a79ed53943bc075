/* Where the samples of a block are: the shards of its rows, and their rows of the index.
 * reading/blocks/held.py calls it, and has the same in NumPy.
 *
 * Whatever numbers are passed, nothing outside the given buffers is read or written: ValueError for a row that is not
 * there.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/columns.h"
#include "include/part.h"

static int take_writable(PyObject *object, Column *column)
{
    if (PyObject_GetBuffer(object, &column->view, PyBUF_WRITABLE) < 0)
        return 0;
    column->count = column->view.len / (Py_ssize_t)sizeof(int64_t);
    return 1;
}

static inline void set(const Column *column, Py_ssize_t number, int64_t value)
{
    memcpy((char *)column->view.buf + number * (Py_ssize_t)sizeof value, &value, sizeof value);
}

static void *wrong(const char *fact)
{
    PyErr_SetString(PyExc_ValueError, fact);
    return NULL;
}

/* The shard of a row: the last whose first row is not above it, of those with rows. */
static Py_ssize_t shard_of(const Column *firsts, int64_t row)
{
    Py_ssize_t low = 0, high = firsts->count - 1;
    while (high - low > 1) {
        const Py_ssize_t middle = low + (high - low) / 2;
        if (at(firsts, middle) <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Replaces the shards in `slots` by their places among those that occur, which are returned. */
static PyObject *number_slots(const Column *slots, Py_ssize_t shards)
{
    Py_ssize_t *places = PyMem_Calloc((size_t)shards + 1, sizeof *places);
    PyObject *found = places == NULL ? PyErr_NoMemory() : PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < slots->count; i++) {
        const int64_t shard = at(slots, i); /* in range, unless the caller's columns share their memory */
        if (shard >= 0 && shard < shards) {
            places[shard] = 1;
        } else {
            wrong("the columns overlap");
            Py_CLEAR(found);
        }
    }
    for (Py_ssize_t shard = 0, place = 0; found != NULL && shard < shards; shard++) {
        if (!places[shard])
            continue;
        places[shard] = place++;
        PyObject *number = PyLong_FromSsize_t(shard);
        if (number == NULL || PyList_Append(found, number) < 0)
            Py_CLEAR(found);
        Py_XDECREF(number);
    }
    for (Py_ssize_t i = 0; found != NULL && i < slots->count; i++)
        set(slots, i, places[at(slots, i)]);
    PyMem_Free(places);
    return found;
}

PyDoc_STRVAR(split_doc,
             "split(firsts, rows, slots, local)\n--\n\n"
             "The shards of some rows, ascending, as a list. firsts: the first row of each shard, and the number\n"
             "of rows. slots: filled with the place of each row's shard in the list. local: with its number\n"
             "within its shard. (int64)");

static PyObject *split(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *first_items, *row_items, *slot_items, *local_items, *found = NULL;
    Column firsts = {0}, rows = {0}, slots = {0}, local = {0};
    if (!PyArg_ParseTuple(args, "OOOO", &first_items, &row_items, &slot_items, &local_items))
        return NULL;
    if (!take_column(first_items, &firsts) || !take_column(row_items, &rows) || !take_writable(slot_items, &slots) ||
        !take_writable(local_items, &local))
        goto end;
    if (firsts.count < 1 || slots.count != rows.count || local.count != rows.count) {
        wrong("the columns differ in length");
        goto end;
    }
    for (Py_ssize_t i = 0; i < rows.count; i++) {
        const int64_t row = at(&rows, i);
        const Py_ssize_t shard = shard_of(&firsts, row);
        if (shard + 1 >= firsts.count || row < at(&firsts, shard) || row >= at(&firsts, shard + 1)) {
            wrong("there is no such row");
            goto end;
        }
        set(&slots, i, shard);
        set(&local, i, (int64_t)((uint64_t)row - (uint64_t)at(&firsts, shard)));
    }
    found = number_slots(&slots, firsts.count - 1);
end:
    release(&local);
    release(&slots);
    release(&rows);
    release(&firsts);
    return found;
}

PyDoc_STRVAR(
    gather_doc,
    "gather(tables, slots, local, out)\n--\n\n"
    "Fills `out`, c columns of n numbers, with row local[i] of tables[slots[i]], whose rows have c numbers (int64).");

static PyObject *gather(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *table_items, *slot_items, *local_items, *out_item, *result = NULL;
    Column slots = {0}, local = {0}, out = {0};
    Buffers tables = {0};
    if (!PyArg_ParseTuple(args, "OOOO", &table_items, &slot_items, &local_items, &out_item))
        return NULL;
    if (!take_buffers(table_items, &tables) || !take_column(slot_items, &slots) || !take_column(local_items, &local) ||
        !take_writable(out_item, &out))
        goto end;
    const Py_ssize_t count = slots.count, columns = count ? out.count / count : 0;
    if (local.count != count || columns * count != out.count) {
        wrong("the columns differ in length");
        goto end;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const int64_t slot = at(&slots, i), row = at(&local, i);
        const Py_ssize_t width = columns * (Py_ssize_t)sizeof(int64_t);
        if (slot < 0 || slot >= tables.count || row < 0 || width == 0 || row >= tables.views[slot].len / width) {
            wrong("there is no such row");
            goto end;
        }
        const char *place = (const char *)tables.views[slot].buf + row * width;
        for (Py_ssize_t column = 0; column < columns; column++)
            memcpy((char *)out.view.buf + (column * count + i) * (Py_ssize_t)sizeof(int64_t),
                   place + column * (Py_ssize_t)sizeof(int64_t), sizeof(int64_t));
    }
    result = Py_NewRef(Py_None);
end:
    release(&out);
    release(&local);
    release(&slots);
    release_buffers(&tables);
    return result;
}

static PyMethodDef METHODS[] = {
    {"split", split, METH_VARARGS, split_doc}, {"gather", gather, METH_VARARGS, gather_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "lookup", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_lookup(void)
{
    return PyModule_Create(&MODULE);
}
