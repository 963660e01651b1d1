// Streams to and from the user's files.
import { createReadStream, createWriteStream, lstatSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Cli } from "./command.ts";

/** Writes a body to standard output or, by way of a temporary file beside it, to `path`. */
export async function saveBody(cli: Cli, body: AsyncIterable<Uint8Array>, path: string): Promise<void> {
  if (path === "") {
    for await (const chunk of body) cli.out(chunk);
    return;
  }
  const temporary = join(dirname(path), `.tmp-${basename(path)}${process.pid}`);
  const direct = isSpecial(path);
  const file = createWriteStream(direct ? path : temporary, { mode: 0o600 });
  try {
    const failed = new Promise<never>((_, reject) => void file.once("error", reject));
    failed.catch(() => {});
    for await (const chunk of body) {
      if (!file.write(chunk)) await Promise.race([new Promise<void>((resolve) => void file.once("drain", resolve)), failed]);
    }
    await Promise.race([new Promise<void>((resolve) => void file.end(resolve)), failed]);
    if (!direct) renameSync(temporary, path);
  } catch (error) {
    if (!direct) rmSync(temporary, { force: true });
    throw error;
  }
}

/** Refuses what can't be written to, in docker's words. */
export function checkOutput(path: string): void {
  const dir = dirname(path) || ".";
  try {
    if (!statSync(dir).isDirectory()) throw new Error();
  } catch {
    throw new Error(`invalid output path: directory ${JSON.stringify(dir)} does not exist`);
  }
  try {
    if (lstatSync(path).isDirectory()) throw new Error(`invalid output path: ${JSON.stringify(path)} must not be a directory`);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") throw error;
  }
}

function isSpecial(path: string): boolean {
  try {
    return !lstatSync(path).isFile();
  } catch {
    return false;
  }
}

/** The bytes of a file, or of standard input for "-" and "". */
export function openSource(path: string): AsyncIterable<Uint8Array> {
  if (path !== "" && path !== "-") {
    statSync(path);
    return createReadStream(path, { highWaterMark: 256 * 1024 }) as AsyncIterable<Uint8Array>;
  }
  return standardInput();
}

async function* standardInput(): AsyncGenerator<Uint8Array> {
  const { inputChunks } = await import("./terminal/input.ts");
  yield* inputChunks(0);
}
