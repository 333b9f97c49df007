/* The Python face: one function runs any kernel by its number. Data types, contiguity and
 * writability are checked here, shapes by the typed wrappers in Python, which alone call it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include "native.h"

static const Isa *isa;

/* Fills `view`; 0 when the object is what the letter of the spec asks for. */
static int get_buffer(PyObject *object, Py_buffer *view, char letter, const char *kernel, int at) {
    int writable = letter < 'a', size = letter == 'h' || letter == 'H' ? 2 : 4;
    if (letter == 'd' || letter == 'D' || letter == 'l') size = 8;
    if (letter == 'b') size = 1;
    if (PyObject_GetBuffer(object, view, PyBUF_FORMAT |
                           (letter == 'v' ? PyBUF_STRIDES : PyBUF_C_CONTIGUOUS) |
                           (writable ? PyBUF_WRITABLE : 0)))
        return -1;
    const char *formats = strchr("fFv", letter) ? "f" : strchr("dD", letter) ? "d" : letter == 'l' ? "lq" : size == 2 ? "H" : size == 1 ? "B" : "IL";
    /* A single letter also means aligned: NumPy writes "=f" for misaligned memory. */
    if (view->itemsize == size && strlen(view->format) == 1 && strchr(formats, view->format[0]))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s: array %d must have buffer format '%c', got '%s'", kernel, at,
                 formats[0], view->format);
    PyBuffer_Release(view);
    return -1;
}

/* run(kernel number, arrays, whole numbers, floats, items, items per block) */
static PyObject *run(PyObject *self, PyObject *const *a, Py_ssize_t nargs) {
    Args args = {.grain = 1};
    Py_buffer views[14];
    int held = 0, at = 0;
    const Entry *entry = isa->entries;
    if (nargs != 6 || !PyTuple_Check(a[1]) || !PyTuple_Check(a[2]) || !PyTuple_Check(a[3])
        || PyTuple_GET_SIZE(a[2]) > 20 || PyTuple_GET_SIZE(a[3]) > 10) {
        PyErr_SetString(PyExc_TypeError, "run(kernel, arrays, ints, floats, items, grain)");
        return NULL;
    }
    long number = PyLong_AsLong(a[0]);
    for (long i = 0; i < number && entry->name; i++) entry++;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a[2]); i++)
        args.n[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(a[2], i));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a[3]); i++)
        args.f[i] = (float)PyFloat_AsDouble(PyTuple_GET_ITEM(a[3], i));
    int64_t items = PyLong_AsLongLong(a[4]);
    args.grain = PyLong_AsLongLong(a[5]);
    if (PyErr_Occurred()) return NULL;
    if (number < 0 || !entry->name || args.grain < 1) {
        PyErr_SetString(PyExc_ValueError, "no such kernel, or a grain below 1");
        return NULL;
    }
    for (const char *spec = entry->buffers; *spec; spec++, at++) {
        int optional = *spec == '?';
        spec += optional;
        if (at >= PyTuple_GET_SIZE(a[1])) {
            PyErr_Format(PyExc_TypeError, "%s: too few arrays", entry->name);
            goto release;
        }
        PyObject *object = PyTuple_GET_ITEM(a[1], at);
        if (optional && object == Py_None) continue;
        if (get_buffer(object, &views[held], *spec, entry->name, at)) goto release;
        args.p[at] = views[held++].buf;
    }
    if (items <= args.grain) { /* too short to let go of the interpreter lock */
        if (items > 0) entry->kernel(&args, 0, items);
    } else {
        Py_BEGIN_ALLOW_THREADS
        pool_run(entry->kernel, &args, items);
        Py_END_ALLOW_THREADS
    }
release:
    while (held) PyBuffer_Release(&views[--held]);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyObject *set_threads(PyObject *self, PyObject *count) {
    long threads = PyLong_AsLong(count);
    if (PyErr_Occurred()) return NULL;
    pool_set_threads((int)(threads > 1 << 20 ? 1 << 20 : threads));
    Py_RETURN_NONE;
}

/* (instruction set, floats in a vector, channels in a panel, threads, threads started) */
static PyObject *info(PyObject *self, PyObject *unused) {
    return Py_BuildValue("(siiii)", isa->name, isa->lanes, isa->panel, pool_get_threads(),
                         pool_started());
}

static PyObject *usable(PyObject *self, PyObject *unused) {
    PyObject *names = PyList_New(0);
    for (const Isa *i = ISAS; names && i->name; i++) {
        PyObject *name = i->usable() ? PyUnicode_FromString(i->name) : NULL;
        if (name && PyList_Append(names, name)) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *set_isa(PyObject *self, PyObject *name) {
    const char *wanted = PyUnicode_AsUTF8(name);
    if (!wanted) return NULL;
    for (const Isa *i = ISAS; i->name; i++)
        if (!strcmp(i->name, wanted) && i->usable()) {
            isa = i;
            Py_RETURN_NONE;
        }
    return PyErr_Format(PyExc_ValueError, "instruction set %R is not usable here", name);
}

/* Lets the C library keep memory that was freed for the next arrays: without this it goes back to
 * the system at every step of a training, and returns page by page. Whether it could be done. */
static PyObject *keep_memory(PyObject *self, PyObject *unused) {
#if defined(__GLIBC__)
    return PyBool_FromLong(mallopt(M_MMAP_THRESHOLD, 1 << 30) && mallopt(M_TRIM_THRESHOLD, INT_MAX));
#else
    Py_RETURN_FALSE;
#endif
}

static PyMethodDef METHODS[] = {
    {"run", (PyCFunction)(void (*)(void))run, METH_FASTCALL, NULL},
    {"set_threads", set_threads, METH_O, NULL},
    {"set_isa", set_isa, METH_O, NULL},
    {"info", info, METH_NOARGS, NULL},
    {"keep_memory", keep_memory, METH_NOARGS, NULL},
    {"usable", usable, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, METHODS};

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = PyModule_Create(&MODULE), *kernels = PyDict_New();
    if (!module || !kernels) return NULL;
    for (isa = ISAS; !isa->usable(); isa++) {}
    for (long i = 0; isa->entries[i].name; i++) {
        PyObject *number = PyLong_FromLong(i);
        if (!number || PyDict_SetItemString(kernels, isa->entries[i].name, number)) return NULL;
        Py_DECREF(number);
    }
    pool_init(1); /* the Python side sets the number of threads; none starts here */
    return PyModule_AddObject(module, "kernels", kernels) ? NULL : module;
}
