// The native addon in the executable (scripts/build.ts), by a literal path so that it is embedded. require() takes three times as long, a quarter of a
// millisecond of each start, but is the only way from source.
import path from "../../build/jubako.node" with { type: "file" };

const loaded: { exports: unknown } = { exports: {} };
process.dlopen(loaded, path);
export const addon: unknown = loaded.exports;
