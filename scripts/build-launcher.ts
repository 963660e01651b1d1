// Writes dist/bin/jubako-runtime and dist/bin/jubako: see src/runtime/launcher.ts.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { launcher, runtimeLauncher } from "../src/runtime/launcher.ts";

function install(name: string, program: Uint8Array): void {
  const file = `dist/bin/${name}`;
  writeFileSync(`${file}.${process.pid}.tmp`, program, { mode: 0o755 });
  renameSync(`${file}.${process.pid}.tmp`, file);
}

install("jubako", launcher());
install("jubako-runtime", runtimeLauncher(existsSync("build/lean") ? readFileSync("build/lean") : undefined));
