// Writes dist/bin/jubako-runtime: see src/runtime/launcher.ts.
import { renameSync, writeFileSync } from "node:fs";
import { launcher } from "../src/runtime/launcher.ts";

const file = "dist/bin/jubako-runtime";
writeFileSync(`${file}.${process.pid}.tmp`, launcher(), { mode: 0o755 });
renameSync(`${file}.${process.pid}.tmp`, file);
