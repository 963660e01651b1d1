// The one native binding: raw system calls for TypeScript. It knows numbers and buffers, nothing of containers.
//
//   syscall(nr, ...args)   result, or -errno. An argument is a number, a bigint, a string (passed as a NUL-ended copy), a typed
//                          array or ArrayBuffer (passed as its address), or null/undefined (0).
//   address(buffer)        where a buffer's bytes are, for structures that hold pointers. Valid while the caller keeps it.
//   poller(callback)       an epoll descriptor and a thread that waits on it and calls callback(data, events) for each event.
//   pollerRef(handle, on)  whether that poller keeps the event loop alive.
//   spawn(block)           vfork and exec with a descriptor map; see spawn.h.

#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <dlfcn.h>
#include <node_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include "spawn.h"

enum { MAX_ARGS = 7, EVENTS = 64 };

static napi_value fail(napi_env env, const char *text) {
  napi_throw_type_error(env, NULL, text);
  return NULL;
}

static napi_value number(napi_env env, int64_t n) {
  napi_value out = NULL;
  napi_create_int64(env, n, &out);
  return out;
}

// The address of a typed array's or array buffer's bytes; false where the value is neither.
static bool bytes_of(napi_env env, napi_value v, void **data) {
  bool is = false;
  size_t length = 0;
  if (napi_is_typedarray(env, v, &is) == napi_ok && is)
    return napi_get_typedarray_info(env, v, NULL, NULL, data, NULL, NULL) == napi_ok;
  if (napi_is_arraybuffer(env, v, &is) == napi_ok && is) return napi_get_arraybuffer_info(env, v, data, &length) == napi_ok;
  return false;
}

// One argument as a register; a string is copied to *copy, which the caller frees.
static bool argument(napi_env env, napi_value v, long *out, char **copy) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, v, &type);
  switch (type) {
    case napi_undefined:
    case napi_null: *out = 0; return true;
    case napi_boolean: {
      bool b = false;
      napi_get_value_bool(env, v, &b);
      *out = b;
      return true;
    }
    case napi_number: {
      double d = 0;
      napi_get_value_double(env, v, &d);
      *out = d >= 9223372036854775808.0 ? (long)(unsigned long)d : (long)d;
      return true;
    }
    case napi_bigint: {
      uint64_t n = 0;
      int sign = 0;
      size_t words = 1;
      if (napi_get_value_bigint_words(env, v, &sign, &words, &n) != napi_ok || words > 1) return false;
      *out = sign ? -(long)n : (long)n;
      return true;
    }
    case napi_string: {
      size_t length = 0;
      if (napi_get_value_string_utf8(env, v, NULL, 0, &length) != napi_ok) return false;
      char *text = malloc(length + 1);
      if (!text) return false;
      if (napi_get_value_string_utf8(env, v, text, length + 1, &length) != napi_ok || memchr(text, 0, length)) {
        free(text);
        return false;
      }
      *copy = text;
      *out = (long)text;
      return true;
    }
    case napi_object: {
      void *data = NULL;
      if (!bytes_of(env, v, &data)) return false;
      *out = (long)data;
      return true;
    }
    default: return false;
  }
}

static void free_copies(char **copies) {
  for (int i = 0; i < MAX_ARGS; i++) free(copies[i]);
}

static bool arguments(napi_env env, size_t argc, napi_value *argv, long *regs, char **copies) {
  for (size_t i = 0; i < argc; i++)
    if (!argument(env, argv[i], &regs[i], &copies[i])) {
      free_copies(copies);
      return false;
    }
  return true;
}

static const char BAD_ARGUMENT[] = "syscall: an argument is neither a number, a buffer nor a string without NUL";

static napi_value js_syscall(napi_env env, napi_callback_info info) {
  size_t argc = MAX_ARGS;
  napi_value argv[MAX_ARGS];
  long r[MAX_ARGS] = {0};
  char *copies[MAX_ARGS] = {0};
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  if (argc > MAX_ARGS) argc = MAX_ARGS;
  if (!arguments(env, argc, argv, r, copies)) return fail(env, BAD_ARGUMENT);
  long result = syscall(r[0], r[1], r[2], r[3], r[4], r[5], r[6]);
  if (result == -1) result = -errno;
  free_copies(copies);
  return number(env, result);
}

static napi_value js_address(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argv[1];
  void *data = NULL;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  if (argc < 1 || !bytes_of(env, argv[0], &data)) return fail(env, "address: not a buffer");
  return number(env, (int64_t)(intptr_t)data);
}

// ---- readiness: one thread in epoll_wait, its events called into JavaScript

struct poller {
  int epfd;
  napi_threadsafe_function call;
};

struct batch {
  int n;
  struct epoll_event events[EVENTS];
};

static void poller_deliver(napi_env env, napi_value callback, void *context, void *data) {
  (void)context;
  struct batch *b = data;
  if (env && callback) {
    napi_value self = NULL;
    napi_get_undefined(env, &self);
    for (int i = 0; i < b->n; i++) {
      napi_value argv[2] = {number(env, (int64_t)b->events[i].data.u64), number(env, b->events[i].events)};
      napi_call_function(env, self, callback, 2, argv, NULL);
    }
  }
  free(b);
}

static void *poller_loop(void *arg) {
  struct poller *p = arg;
  for (;;) {
    struct batch *b = malloc(sizeof *b);
    if (!b) break;
    do b->n = epoll_wait(p->epfd, b->events, EVENTS, -1);
    while (b->n < 0 && errno == EINTR);
    if (b->n < 0 || napi_call_threadsafe_function(p->call, b, napi_tsfn_blocking) != napi_ok) {
      free(b);
      break;
    }
  }
  return NULL;
}

static napi_value js_poller(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argv[1], name = NULL, out = NULL, handle = NULL;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  struct poller *p = calloc(1, sizeof *p);
  if (!p) return fail(env, "poller: out of memory");
  napi_create_string_utf8(env, "poller", NAPI_AUTO_LENGTH, &name);
  if (argc < 1 || napi_create_threadsafe_function(env, argv[0], NULL, name, 0, 1, NULL, NULL, NULL, poller_deliver, &p->call) != napi_ok) {
    free(p);
    return fail(env, "poller: a function is needed");
  }
  napi_unref_threadsafe_function(env, p->call);
  p->epfd = epoll_create1(EPOLL_CLOEXEC);
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 64 * 1024);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  pthread_t thread;
  int err = p->epfd < 0 ? errno : pthread_create(&thread, &attr, poller_loop, p);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  if (err) return fail(env, "poller: no descriptor or no thread");
  napi_create_object(env, &out);
  napi_create_external(env, p, NULL, NULL, &handle);
  napi_set_named_property(env, out, "fd", number(env, p->epfd));
  napi_set_named_property(env, out, "handle", handle);
  return out;
}

static napi_value js_poller_ref(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value argv[2];
  void *p = NULL;
  bool on = false;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  if (argc < 2 || napi_get_value_external(env, argv[0], &p) != napi_ok || napi_get_value_bool(env, argv[1], &on) != napi_ok)
    return fail(env, "pollerRef: a poller's handle and a boolean are needed");
  if (on) napi_ref_threadsafe_function(env, ((struct poller *)p)->call);
  else napi_unref_threadsafe_function(env, ((struct poller *)p)->call);
  return NULL;
}

static napi_value js_spawn(napi_env env, napi_callback_info info) {
  size_t argc = 1, length = 0;
  napi_value argv[1];
  void *block = NULL;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  if (argc < 1 || napi_get_arraybuffer_info(env, argv[0], &block, &length) != napi_ok || length != sizeof(struct spawn))
    return fail(env, "spawn: not its block");
  return number(env, spawn_start(block));
}

/* The executable holds this file, and Bun writes it out to load it: for each user once, as .bun-UID-…, but where another's file has that name (root in a
   user namespace is 0 as well) anew for each process, under a name that nothing takes away. */
static void forget_own_file(void) {
  Dl_info self;
  if (!dladdr(spawn_child, &self)) return;
  const char *name = strrchr(self.dli_fname, '/');
  if (name && name[1] == '.' && strncmp(name, "/.bun-", 6) != 0) unlink(self.dli_fname);
}

NAPI_MODULE_INIT() {
  forget_own_file();
  static const struct { const char *name; napi_callback call; } exported[] = {
      {"syscall", js_syscall}, {"address", js_address}, {"poller", js_poller}, {"pollerRef", js_poller_ref}, {"spawn", js_spawn},
  };
  for (size_t i = 0; i < sizeof exported / sizeof *exported; i++) {
    napi_value f = NULL;
    napi_create_function(env, exported[i].name, NAPI_AUTO_LENGTH, exported[i].call, NULL, &f);
    napi_set_named_property(env, exports, exported[i].name, f);
  }
  return exports;
}
