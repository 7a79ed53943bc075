/* `Ahead` as a Python type (gather.c), and the listing of a folder as Python objects (gather.c and tree.c). */
#ifndef SHARDKIT_AHEAD_TYPE_H
#define SHARDKIT_AHEAD_TYPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ahead_files.h"
#include "listed.h"

typedef struct {
    PyObject_HEAD Ahead ahead;
} AheadObject;

static PyTypeObject *ahead_type;

static PyObject *ahead_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *root;
    Extensions wanted;
    Py_ssize_t length, room, most_names;
    int depth;
    if (names != NULL && PyDict_Size(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "Ahead takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "Sy#nni", &root, &wanted.text, &length, &room, &most_names, &depth))
        return NULL;
    if (room < 0 || !are_extensions(wanted.text, length))
        return NULL;
    wanted.length = (size_t)length;
    AheadObject *self = (AheadObject *)PyType_GenericAlloc(type, 0);
    if (self != NULL &&
        !ahead_start(&self->ahead, PyBytes_AsString(root), wanted, (size_t)room, (size_t)most_names, depth)) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void ahead_dealloc(AheadObject *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    ahead_free(&self->ahead);
    PyObject_Free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(ahead_run_doc, "run()\n--\n\nList the tree and read its images, until `stop` or `end`. Once.");

static PyObject *ahead_run_method(AheadObject *self, PyObject *unused)
{
    (void)unused;
    Py_BEGIN_ALLOW_THREADS;
    ahead_run(&self->ahead);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(ahead_visit_doc,
             "visit(paths, offsets, sizes, start)\n--\n\n"
             "In place of `run`, look at files from `start` on by their absolute paths, and read them on the\n"
             "occasion, or only read them if their sizes are known, until `stop` or `end`. The root is `/`. sizes:\n"
             "int64 of each file, NOT_LOOKED_AT before; then -1 for what is no file. Returns where those begin that\n"
             "were not read because the sizes were waited for (`hurry`). ValueError for wrong arguments.");

/* Whether each path is absolute and within the bytes. */
static int ahead_are_files(const ahead_files *files, Py_ssize_t length)
{
    for (size_t i = 0; i < files->count; i++) {
        const int64_t begin = files->offsets[i], end = files->offsets[i + 1];
        if (begin < 0 || end <= begin || end > length || files->paths[begin] != '/' ||
            memchr(files->paths + begin, 0, (size_t)(end - begin)) != NULL)
            return 0;
    }
    return 1;
}

static PyObject *ahead_visit_method(AheadObject *self, PyObject *args)
{
    Py_buffer paths, offsets, sizes;
    Py_ssize_t start;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*w*n", &paths, &offsets, &sizes, &start))
        return NULL;
    const ahead_files files = {paths.buf, offsets.buf, (size_t)sizes.len / sizeof(int64_t)};
    if (start < 0 || (size_t)start > files.count || offsets.len / sizeof(int64_t) <= files.count ||
        strcmp(self->ahead.root, "/") != 0 || !ahead_are_files(&files, paths.len)) {
        PyErr_SetString(PyExc_ValueError, "a path is not absolute, or outside the column, or the root is not `/`");
    } else {
        size_t unread = (size_t)start;
        Py_BEGIN_ALLOW_THREADS;
        if (ahead_enter(&self->ahead)) {
            unread = ahead_visit(&self->ahead, &files, sizes.buf, (size_t)start);
            ahead_leave(&self->ahead);
        }
        Py_END_ALLOW_THREADS;
        result = PyLong_FromSize_t(unread);
    }
    PyBuffer_Release(&sizes);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&paths);
    return result;
}

PyDoc_STRVAR(ahead_hurry_doc, "hurry()\n--\n\nFind sizes first, and read later.");

static PyObject *ahead_hurry_method(AheadObject *self, PyObject *unused)
{
    (void)unused;
    self->ahead.hurried = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(ahead_list_only_doc, "list_only()\n--\n\nRead no more images from now on.");

static PyObject *ahead_list_only_method(AheadObject *self, PyObject *unused)
{
    (void)unused;
    self->ahead.list_only = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(ahead_stop_doc, "stop()\n--\n\nLet `run` end soon.");

static PyObject *ahead_stop_method(AheadObject *self, PyObject *unused)
{
    (void)unused;
    ahead_stop(&self->ahead);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(ahead_end_doc, "end()\n--\n\n"
                            "Stop, and wait until `run` has ended. Returns when it began to read, in nanoseconds like\n"
                            "file times; -1 if it read nothing.");

static PyObject *ahead_end_method(AheadObject *self, PyObject *unused)
{
    (void)unused;
    Py_BEGIN_ALLOW_THREADS;
    ahead_end(&self->ahead);
    Py_END_ALLOW_THREADS;
    return PyLong_FromLongLong(self->ahead.files.count ? self->ahead.began : -1);
}

PyDoc_STRVAR(ahead_take_doc, "take(path)\n--\n\n"
                             "The listing of a folder, as of `tree.list_folder`, once; None if it was not listed, and\n"
                             "will not be. Listing comes before reading from then on. path: bytes, below the root.");

static PyObject *ahead_take_method(AheadObject *self, PyObject *path)
{
    int listed;
    Names names = {0};
    if (!PyBytes_Check(path)) {
        PyErr_SetString(PyExc_TypeError, "the path is not bytes");
        return NULL;
    }
    const char *text = PyBytes_AsString(path);
    Py_BEGIN_ALLOW_THREADS;
    listed = ahead_take(&self->ahead, text, &names);
    Py_END_ALLOW_THREADS;
    PyObject *found = listed ? listed_names(&names) : Py_NewRef(Py_None);
    free_names(&names);
    return found;
}

static PyMethodDef AHEAD_METHODS[] = {
    {"run", (PyCFunction)ahead_run_method, METH_NOARGS, ahead_run_doc},
    {"visit", (PyCFunction)ahead_visit_method, METH_VARARGS, ahead_visit_doc},
    {"hurry", (PyCFunction)ahead_hurry_method, METH_NOARGS, ahead_hurry_doc},
    {"list_only", (PyCFunction)ahead_list_only_method, METH_NOARGS, ahead_list_only_doc},
    {"stop", (PyCFunction)ahead_stop_method, METH_NOARGS, ahead_stop_doc},
    {"end", (PyCFunction)ahead_end_method, METH_NOARGS, ahead_end_doc},
    {"take", (PyCFunction)ahead_take_method, METH_O, ahead_take_doc},
    {NULL, NULL, 0, NULL}};

PyDoc_STRVAR(ahead_doc,
             "Ahead(root, wanted, room, most_names, depth)\n--\n\n"
             "Lists a tree to a depth below its root, until `most_names` names wait to be taken, and reads up\n"
             "to `room` bytes of its images. root: bytes. wanted: as for `tree.list_folder`.");

static PyType_Slot AHEAD_SLOTS[] = {{Py_tp_new, ahead_new},
                                    {Py_tp_dealloc, ahead_dealloc},
                                    {Py_tp_methods, AHEAD_METHODS},
                                    {Py_tp_doc, (void *)ahead_doc},
                                    {0, NULL}};

static PyType_Spec AHEAD_SPEC = {"shardkit.native.gather.Ahead", sizeof(AheadObject), 0, Py_TPFLAGS_DEFAULT,
                                 AHEAD_SLOTS};

#endif
