// The lean host: QuickJS with the few functions that the runtime's commands need of a host, for programs whose start is most of what they take.
// It knows numbers, buffers and the files that lie behind it (scripts/build-lean.ts), nothing of containers. JavaScript finds `host`:
//
//   syscall(nr, ...registers)   result, or -errno. A register is a number or a bigint.
//   address(buffer)             where a buffer's bytes are; valid while the caller keeps it.
//   spawn(block)                vfork and exec, see spawn.h.
//   encode(text)                its UTF-8 with a NUL behind it, in an ArrayBuffer.
//   decode(buffer)              the text of UTF-8.
//   load(name)                  a module that lies behind the program, as a promise; of any other file its bytes in an ArrayBuffer.
//
//   turn()                      JavaScript's own: called where there is nothing to do; where it does not say true, that is the end.
//
// It begins with main.js, which ends it by exit_group(2).

#define _GNU_SOURCE
#include <quickjs.h>
#include <stdio.h>
#include <string.h>
#include "spawn.h"

// Of each file: its name, NUL-ended and padded to 56 bytes, its length as u64, its bytes, padded to eight. An empty name ends them.
__asm__(".section .rodata\n.balign 8\nfiles: .incbin \"" FILES "\"\n.fill 64\n.previous");
extern const uint8_t files[];
enum { NAME_SIZE = 56, REGISTERS = 7 };

static const uint8_t *find(const char *name, size_t *length) {
  for (const uint8_t *at = files; *at; at += NAME_SIZE + 8 + ((*length + 7) & ~(size_t)7)) {
    memcpy(length, at + NAME_SIZE, 8);
    if (strcmp((const char *)at, name) == 0) return at + NAME_SIZE + 8;
  }
  return NULL;
}

// Of a typed array, or of an array buffer; NULL with an exception where it is neither.
static uint8_t *bytes_of(JSContext *ctx, JSValueConst value, size_t *length) {
  size_t offset = 0, whole;
  JSValue buffer = JS_GetTypedArrayBuffer(ctx, value, &offset, length, NULL);
  if (JS_IsException(buffer)) {
    JS_FreeValue(ctx, JS_GetException(ctx));
    return JS_GetArrayBuffer(ctx, length, value);
  }
  uint8_t *data = JS_GetArrayBuffer(ctx, &whole, buffer);
  JS_FreeValue(ctx, buffer);
  return data ? data + offset : NULL;
}

// Which call, as QuickJS keeps it of each function.
enum { SYSCALL, ADDRESS, SPAWN, ENCODE, DECODE, LOAD, CALLS };
static const char *const names[CALLS] = {"syscall", "address", "spawn", "encode", "decode", "load"};

static JSValue call(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv, int which) {
  (void)self;
  size_t length = 0;
  if (which == SYSCALL) {
    int64_t r[REGISTERS] = {0};
    for (int i = 0; i < argc && i < REGISTERS; i++)
      if (JS_ToInt64Ext(ctx, &r[i], argv[i])) return JS_EXCEPTION;
    long result = syscall(r[0], r[1], r[2], r[3], r[4], r[5], r[6]);
    return JS_NewInt64(ctx, result == -1 ? -errno : result);
  }
  if (which == ENCODE || which == LOAD) {
    const char *text = JS_ToCStringLen(ctx, &length, argv[0]);
    if (!text) return JS_EXCEPTION;
    JSValue result;
    if (which == ENCODE) result = JS_NewArrayBufferCopy(ctx, (const uint8_t *)text, length + 1);
    else if (strstr(text, ".js")) result = JS_LoadModule(ctx, "main.js", text);
    else {
      const uint8_t *file = find(text, &length);
      result = file ? JS_NewArrayBufferCopy(ctx, file, length) : JS_ThrowReferenceError(ctx, "there is no file %s", text);
    }
    JS_FreeCString(ctx, text);
    return result;
  }
  uint8_t *data = bytes_of(ctx, argv[0], &length);
  if (!data) return JS_EXCEPTION;
  if (which == DECODE) return JS_NewStringLen(ctx, (const char *)data, length);
  if (which == ADDRESS) return JS_NewInt64(ctx, (int64_t)data);
  if (length != sizeof(struct spawn)) return JS_ThrowTypeError(ctx, "spawn: not its block");
  return JS_NewInt64(ctx, spawn_start((struct spawn *)data));
}

static JSModuleDef *import(JSContext *ctx, const char *name, void *opaque) {
  (void)opaque;
  size_t length = 0;
  const uint8_t *code = find(name, &length);
  JSValue module = code ? JS_ReadObject(ctx, code, length, JS_READ_OBJ_BYTECODE) : JS_ThrowReferenceError(ctx, "there is no module %s", name);
  if (JS_IsException(module)) return NULL;
  JS_FreeValue(ctx, module);  // the context keeps it
  return JS_VALUE_GET_PTR(module);
}

int main(void) {
  JSRuntime *rt = JS_NewRuntime();
  JSContext *ctx = rt ? JS_NewContext(rt) : NULL;
  if (!ctx) return 1;
  // It is over before collecting pays.
  JS_SetGCThreshold(rt, -1);
  JS_SetModuleLoaderFunc(rt, NULL, import, NULL);
  JSValue host = JS_NewObject(ctx);
  for (int i = 0; i < CALLS; i++) JS_SetPropertyStr(ctx, host, names[i], JS_NewCFunctionMagic(ctx, call, names[i], 1, JS_CFUNC_generic_magic, i));
  JS_SetPropertyStr(ctx, JS_GetGlobalObject(ctx), "host", JS_DupValue(ctx, host));
  JSValue loaded = JS_LoadModule(ctx, "main.js", "main.js");
  JSValue goes_on;
  do {
    for (JSContext *of = ctx; JS_ExecutePendingJob(rt, &of) > 0;) continue;
    goes_on = JS_Invoke(ctx, host, JS_NewAtom(ctx, "turn"), 0, NULL);
  } while (!JS_IsException(goes_on) && JS_ToBool(ctx, goes_on));
  if (JS_PromiseState(ctx, loaded) == JS_PROMISE_REJECTED) JS_Throw(ctx, JS_PromiseResult(ctx, loaded));
  if (JS_HasException(ctx)) fprintf(stderr, "%s\n", JS_ToCString(ctx, JS_GetException(ctx)));
  return 1;
}
