// The one native binding: raw system calls for TypeScript. It knows numbers and buffers, nothing of containers.
//
//   syscall(nr, ...args)     result, or -errno. An argument is a number, a bigint, a boolean, a string (passed as a NUL-ended copy), a
//                            typed array or ArrayBuffer (passed as its address), or null/undefined (0).
//   address(buffer)          where a buffer's bytes are, for structures that hold pointers. Valid while the caller keeps it.
//   poller(epoll, callback)  a thread in epoll_wait(2), which calls callback(data, events) for each event. It does not keep the event loop
//                            alive. Data is below 2^48.
//   spawn(block)             vfork and exec with a descriptor map; see spawn.h.
//   file                     which file this was loaded from.

#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <dlfcn.h>
#include <node_api.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include "spawn.h"

// TEXT: for the strings of one call; the kernel takes none longer than a page.
enum { MAX_ARGS = 7, TEXT = 4 * 4096 };

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
  return napi_is_arraybuffer(env, v, &is) == napi_ok && is && napi_get_arraybuffer_info(env, v, data, &length) == napi_ok;
}

// One argument as a register; a string is copied to *text, of which *room is left.
static bool argument(napi_env env, napi_value v, int64_t *out, char **text, size_t *room) {
  napi_valuetype type = napi_undefined;
  bool is = false;
  size_t length = 0;
  void *data = NULL;
  napi_typeof(env, v, &type);
  switch (type) {
    case napi_undefined:
    case napi_null: return true;
    case napi_boolean:
      napi_get_value_bool(env, v, &is);
      *out = is;
      return true;
    case napi_number: return napi_get_value_int64(env, v, out) == napi_ok;
    case napi_bigint:
      if (napi_get_value_bigint_int64(env, v, out, &is) == napi_ok && is) return true;
      return napi_get_value_bigint_uint64(env, v, (uint64_t *)out, &is) == napi_ok && is;
    case napi_string:
      // One that fills all the room may have been cut off.
      if (napi_get_value_string_utf8(env, v, *text, *room, &length) != napi_ok || length + 1 >= *room || memchr(*text, 0, length)) return false;
      *out = (int64_t)*text;
      *text += length + 1;
      *room -= length + 1;
      return true;
    case napi_object:
      if (!bytes_of(env, v, &data)) return false;
      *out = (int64_t)data;
      return true;
    default: return false;
  }
}

static napi_value js_syscall(napi_env env, napi_callback_info info) {
  size_t argc = MAX_ARGS, room = TEXT;
  napi_value argv[MAX_ARGS];
  int64_t r[MAX_ARGS] = {0};
  char copies[TEXT], *text = copies;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  for (size_t i = 0; i < argc && i < MAX_ARGS; i++)
    if (!argument(env, argv[i], &r[i], &text, &room))
      return fail(env, "syscall: an argument is neither a number, a buffer nor a string as the kernel takes them");
  long result = syscall(r[0], r[1], r[2], r[3], r[4], r[5], r[6]);
  return number(env, result == -1 ? -errno : result);
}

static napi_value js_address(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argv[1] = {NULL};
  void *data = NULL;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  return bytes_of(env, argv[0], &data) ? number(env, (int64_t)data) : fail(env, "address: not a buffer");
}

// An event travels as one word: its data, and in the lower 16 bits what happened.
static void poller_deliver(napi_env env, napi_value callback, void *epoll, void *word) {
  (void)epoll;
  if (!env || !callback) return;
  napi_value argv[2] = {number(env, (int64_t)((uint64_t)word >> 16)), number(env, (uint64_t)word & 0xffff)};
  napi_call_function(env, callback, callback, 2, argv, NULL);
}

static void *poller_loop(void *call) {
  void *epoll = NULL;
  struct epoll_event events[64];
  napi_get_threadsafe_function_context(call, &epoll);
  for (int n; (n = epoll_wait((int)(intptr_t)epoll, events, 64, -1)) >= 0 || errno == EINTR;)
    for (int i = 0; i < n; i++) {
      void *word = (void *)(events[i].data.u64 << 16 | (events[i].events & 0xffff));
      if (napi_call_threadsafe_function(call, word, napi_tsfn_blocking) != napi_ok) return NULL;
    }
  return NULL;
}

static napi_value js_poller(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value argv[2] = {NULL}, name = NULL;
  int32_t epoll = -1;
  napi_threadsafe_function call;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  napi_create_string_utf8(env, "poller", NAPI_AUTO_LENGTH, &name);
  if (napi_get_value_int32(env, argv[0], &epoll) != napi_ok ||
      napi_create_threadsafe_function(env, argv[1], NULL, name, 0, 1, NULL, NULL, (void *)(intptr_t)epoll, poller_deliver, &call) != napi_ok)
    return fail(env, "poller: a descriptor and a function are needed");
  napi_unref_threadsafe_function(env, call);
  pthread_t thread;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 64 * 1024);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int error = pthread_create(&thread, &attr, poller_loop, call);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  return error ? fail(env, "poller: no thread") : NULL;
}

static napi_value js_spawn(napi_env env, napi_callback_info info) {
  size_t argc = 1, length = 0;
  napi_value argv[1] = {NULL};
  void *block = NULL;
  napi_get_cb_info(env, info, &argc, argv, NULL, NULL);
  if (napi_get_arraybuffer_info(env, argv[0], &block, &length) != napi_ok || length != sizeof(struct spawn)) return fail(env, "spawn: not its block");
  return number(env, spawn_start(block));
}

NAPI_MODULE_INIT() {
  Dl_info self = {.dli_fname = ""};
  napi_value file = NULL;
  dladdr(js_syscall, &self);
  napi_create_string_utf8(env, self.dli_fname, NAPI_AUTO_LENGTH, &file);
  const napi_property_descriptor exported[] = {
      {.utf8name = "syscall", .method = js_syscall}, {.utf8name = "address", .method = js_address}, {.utf8name = "poller", .method = js_poller},
      {.utf8name = "spawn", .method = js_spawn},     {.utf8name = "file", .value = file},
  };
  napi_define_properties(env, exports, sizeof exported / sizeof *exported, exported);
  return exports;
}
