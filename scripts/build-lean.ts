// Makes build/lean: the lean host (native/lean.c) with the runtime's commands behind it, as QuickJS' bytecode. They are the sources of the one
// executable; what the lean host cannot run is left out and stays Bun's (src/runtime/lean/).
import { execFileSync } from "node:child_process";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { getSystemErrorMap } from "node:util";
import type { BunPlugin } from "bun";

const source = resolve("src");
const runtime = `${source}/runtime`;
/** What stands in the place of modules that are made for Node-API and Bun. */
const REPLACED: Record<string, string> = {
  [`${source}/linux/addon.ts`]: `${runtime}/lean/addon.ts`,
  [`${source}/lib/program.ts`]: `${runtime}/lean/program-command.ts`,
  [`${runtime}/player-file.ts`]: `${runtime}/lean/player-file.ts`,
  [`${runtime}/signals.ts`]: `${runtime}/lean/signals.ts`,
  [`${runtime}/seccomp-compile.ts`]: `${runtime}/lean/seccomp-compile.ts`,
};
/** Modules that take an event loop, threads or programs of Node's or Bun's; nobody but a dynamic import may ask for them. */
const ABSENT = ["commands/checkpoint", "commands/inform", "commands/restore", "commands/restore-kept", "commands/seccomp"].map(
  (name) => `${runtime}/${name}.ts`,
);
/** Globals that the lean host has not; a use that is caught and passed over would do something else than Bun. */
const FOREIGN = /(?<![\w$.])(Buffer|Bun|require)(?![\w$])|import\.meta|[}\s]from"(?!\.\/)|import"(?!\.\/)/;

const plugin: BunPlugin = {
  name: "the lean host's modules",
  setup(build) {
    build.onResolve({ filter: /\.ts$/ }, ({ path, importer, kind }) => {
      const wanted = path.startsWith("/") ? path : resolve(importer, "..", path);
      if (!ABSENT.includes(wanted)) return { path: REPLACED[wanted] ?? wanted };
      if (kind !== "dynamic-import") throw new Error(`${importer} needs ${path}, which the lean host has not`);
      return { path: `${runtime}/lean/absent.ts` };
    });
    build.onLoad({ filter: /errno-texts\.ts$/ }, () => {
      const texts = [...getSystemErrorMap()].map(([number, [, text]]) => [-number, text]);
      // As one string it costs nothing where nothing fails.
      return { contents: `export const errnoTexts = () => new Map(JSON.parse(${JSON.stringify(JSON.stringify(texts))}));`, loader: "js" };
    });
  },
};

/** A file as native/lean.c finds it behind the program. */
export function entryOf(name: string, content: Uint8Array): Buffer {
  const head = Buffer.alloc(64);
  head.write(name);
  head.writeBigUInt64LE(BigInt(content.length), 56);
  return Buffer.concat([head, content, Buffer.alloc((8 - (content.length % 8)) % 8)]);
}

/** `define`: what the one executable was built with; plans on disk are both programs'. */
export async function buildLean(define: Record<string, string>): Promise<void> {
  const built = await Bun.build({
    entrypoints: [`${runtime}/lean/main.ts`],
    define,
    minify: true,
    format: "esm",
    splitting: true,
    target: "bun",
    plugins: [plugin],
  });
  for (const log of built.logs) console.error(log);
  if (!built.success) throw new Error("the lean host's modules could not be bundled");

  const files: Buffer[] = [];
  for (const output of built.outputs) {
    // As import() does, but QuickJS' takes the importer's name from debugging information, which there is none of.
    const text = (await output.text()).replace(/import\(("\.\/[^"]*")\)/g, "Promise.resolve($1).then(host.load)");
    const foreign = FOREIGN.exec(text);
    if (foreign)
      throw new Error(
        `${output.path} uses ${foreign[0]}, which the lean host has not: …${text.slice(Math.max(0, foreign.index - 200), foreign.index)}`,
      );
    const name = basename(output.path);
    files.push(entryOf(name, execFileSync("build/lean-compiler", [name], { input: text, maxBuffer: 64 << 20 })));
  }
  files.push(entryOf("player", readFileSync("build/player")));
  // Two builds at the same time may not mix.
  const temporary = `build/lean.${process.pid}`;
  try {
    writeFileSync(`${temporary}.files`, Buffer.concat(files));
    execFileSync("sh", ["scripts/build-native.sh", "lean", `${temporary}.files`, temporary], { stdio: "inherit" });
    renameSync(`${temporary}.files`, "build/lean.files");
    renameSync(temporary, "build/lean");
  } finally {
    for (const file of [temporary, `${temporary}.files`]) rmSync(file, { force: true });
  }
}
