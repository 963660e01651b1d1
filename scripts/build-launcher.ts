// Writes dist/bin/jubako-runtime and dist/bin/jubako: see src/runtime/launcher.ts.
import { renameSync, writeFileSync } from "node:fs";
import { launcher } from "../src/runtime/launcher.ts";

for (const name of ["jubako-runtime", "jubako"] as const) {
  const file = `dist/bin/${name}`;
  writeFileSync(`${file}.${process.pid}.tmp`, launcher(name), { mode: 0o755 });
  renameSync(`${file}.${process.pid}.tmp`, file);
}
