// Makes QuickJS' bytecode of a module, for scripts/build-lean.ts: lean-compiler NAME < source > bytecode.
#include <quickjs.h>
#include <stdio.h>

// What it imports is there when it runs.
static JSModuleDef *import(JSContext *ctx, const char *name, void *opaque) {
  (void)opaque;
  return JS_NewCModule(ctx, name, NULL);
}

int main(int argc, char **argv) {
  static char source[8 << 20];
  size_t size = fread(source, 1, sizeof source - 1, stdin), length = 0;
  JSRuntime *rt = JS_NewRuntime();
  JS_SetStripInfo(rt, JS_STRIP_DEBUG);
  JS_SetModuleLoaderFunc(rt, NULL, import, NULL);
  JSContext *ctx = JS_NewContext(rt);
  JSValue module = JS_Eval(ctx, source, size, argc > 1 ? argv[1] : "module", JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
  if (JS_IsException(module)) {
    fprintf(stderr, "%s\n", JS_ToCString(ctx, JS_GetException(ctx)));
    return 1;
  }
  uint8_t *code = JS_WriteObject(ctx, &length, module, JS_WRITE_OBJ_BYTECODE);
  return !code || fwrite(code, 1, length, stdout) != length;
}
