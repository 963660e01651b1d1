// The native addon in the executable (scripts/build.ts), by a literal path so that it is embedded. require() takes three times as long, a quarter of a
// millisecond of each start, but is the only way from source.
import path from "../../build/jubako.node" with { type: "file" };
import type { Binding } from "./binding.ts";
import { bindingOf, type Native } from "./native.ts";
import { SYS } from "./sys.ts";

const loaded: { exports: unknown } = { exports: {} };
process.dlopen(loaded, path);
const native = loaded.exports as Native;
// Bun writes the file out to load it: for each user once, as .bun-UID-…, but where another's file has that name (root in a user namespace is 0 as
// well) anew for each process, under a name that nothing takes away.
if (/\/\.(?!bun-)[^/]*$/.test(native.file)) native.syscall(SYS.unlink, native.file);

export const addon: Binding = bindingOf(native);
