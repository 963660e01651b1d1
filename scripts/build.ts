// Bundles src/main.ts into one executable with bytecode. Workers are extra entry points, so that the executable can start them by path.
import { execFileSync } from "node:child_process";
import { existsSync, renameSync, rmSync } from "node:fs";
import { Glob } from "bun";
import { buildLean } from "./build-lean.ts";

// A name of its own: two builds at the same time may not mix.
const temporary = `dist/jubako.${process.pid}.tmp`;
/** What `docker version` says of us; a build outside of a checkout has no commit. */
function commit(): string {
  try {
    return execFileSync("git", ["rev-parse", "--short=7", "HEAD"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "unknown";
  }
}

const built = process.env.SOURCE_DATE_EPOCH ? new Date(Number(process.env.SOURCE_DATE_EPOCH) * 1000) : new Date();
const define = {
  "process.env.JUBAKO_COMMIT": JSON.stringify(commit()),
  "process.env.JUBAKO_BUILD_TIME": JSON.stringify(built.toISOString()),
};
const workers = [...new Glob("src/**/*.worker.ts").scanSync(".")].sort();
const result = await Bun.build({
  entrypoints: ["src/main.ts", ...workers],
  // Files of whatever directory it is started in have no say: a .env would become its environment, a bunfig.toml's preload would run in it.
  compile: {
    outfile: temporary,
    autoloadDotenv: false,
    autoloadBunfig: false,
  },
  define,
  minify: true,
  bytecode: true,
  // A chunk, with its own bytecode, for each program and command: start-up reads only what runs (7 ms instead of 12).
  format: "esm",
  splitting: true,
  target: "bun",
  plugins: [
    {
      // What shares a chunk with an import of the kind "text" takes 0.2 ms longer to load: it seems to go without its bytecode.
      name: "text as a module",
      setup(build) {
        build.onLoad({ filter: /\.b64$/ }, async ({ path }) => ({
          contents: `export default ${JSON.stringify(await Bun.file(path).text())}`,
          loader: "js",
        }));
      },
    },
    {
      name: "the addon, embedded",
      setup(build) {
        build.onResolve({ filter: /\/addon\.ts$/ }, () => ({ path: new URL("../src/linux/addon-embedded.ts", import.meta.url).pathname }));
      },
    },
  ],
});
for (const log of result.logs) console.error(log);
if (!result.success) process.exit(1);
renameSync(temporary, "dist/jubako");
rmSync("build/lean", { force: true });
if (existsSync("build/lean-compiler")) await buildLean(define);
