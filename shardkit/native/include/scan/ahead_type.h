/* `Ahead` as a Python type (gather.c), and the listing of a folder as Python objects (gather.c and tree.c). */
#ifndef SHARDKIT_AHEAD_TYPE_H
#define SHARDKIT_AHEAD_TYPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ahead.h"
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
