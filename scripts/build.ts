// Bundles src/main.ts into one executable with bytecode. Workers are extra entry points, so that the executable can start them by path.
import { renameSync } from "node:fs";
import { Glob } from "bun";

const workers = [...new Glob("src/**/*.worker.ts").scanSync(".")].sort();
const result = await Bun.build({
  entrypoints: ["src/main.ts", ...workers],
  // Files of whatever directory it is started in have no say: a .env would become its environment, a bunfig.toml's preload would run in it.
  compile: {
    outfile: "dist/jubako.tmp",
    autoloadDotenv: false,
    autoloadBunfig: false,
  },
  minify: true,
  bytecode: true,
  // A chunk, with its own bytecode, for each program and command: start-up reads only what runs (7 ms instead of 12).
  format: "esm",
  splitting: true,
  target: "bun",
});
for (const log of result.logs) console.error(log);
if (!result.success) process.exit(1);
renameSync("dist/jubako.tmp", "dist/jubako");
