// The build context: a tar that a client sent, unpacked into a directory of the build's own, without what .dockerignore leaves out.
import { mkdirSync, mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { invalidArgument } from "../lib/errors.ts";
import { close, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, open, RESOLVE_IN_ROOT } from "../linux/index.ts";
import { files } from "../oci/index.ts";
import { createMatcher, ignorePatterns, type Matcher } from "./dockerfile/index.ts";
import type { BuilderHost } from "./host.ts";
import { bytesOf, removeAll, textOf } from "./solve/tree.ts";

export interface Context {
  directory: string;
  dockerfile: string;
  /** The Dockerfile's name in the context. */
  name: string;
  remove(): Promise<void>;
}

const DT_DIR = 4;

/** A plain tar that is no longer is unpacked in the run directory, which is in memory on most machines: on a disk, making and removing fifty files takes 15 ms. */
const SMALL = 4 << 20;
const MAGIC = { at: 257, text: "ustar" };

/** Reads until it is known whether a tar is small; it is to be read from what is answered. */
async function looked(tar: Readable): Promise<{ small: boolean; body: Readable }> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  const iterator = tar[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  let done = false;
  while (bytes <= SMALL && !done) {
    const next = await iterator.next();
    if (next.done) done = true;
    else {
      pieces.push(next.value);
      bytes += next.value.length;
    }
  }
  async function* all() {
    yield* pieces;
    if (!done) yield* { [Symbol.asyncIterator]: () => iterator };
  }
  const head = Buffer.concat(pieces.slice(0, 8)).subarray(MAGIC.at, MAGIC.at + MAGIC.text.length);
  return { small: done && head.toString("latin1") === MAGIC.text, body: Readable.from(all(), { objectMode: false }) };
}

function removeIgnored(fd: number, below: string, ignored: Matcher, exceptions: boolean): void {
  for (const { name, type } of files.readDirectory(fd)) {
    const path = below === "" ? files.shown(name) : `${below}/${files.shown(name)}`;
    const out = ignored(path);
    if (type === DT_DIR && (!out || exceptions)) {
      const inner = files.openAt(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
      if (inner < 0) continue;
      let empty: boolean;
      try {
        removeIgnored(inner, path, ignored, exceptions);
        empty = files.readDirectory(files.rewound(inner)).length === 0;
      } finally {
        close(inner);
      }
      if (out && empty) removeAll(fd, name);
    } else if (out) removeAll(fd, name);
  }
}

const exists = (root: number, path: string): boolean => {
  const fd = files.openIn(root, bytesOf(path), O_PATH, RESOLVE_IN_ROOT);
  if (fd >= 0) close(fd);
  return fd >= 0;
};

/** Unpacks a context and reads its Dockerfile. InvalidArgument where there is none. */
export async function receiveContext(host: BuilderHost, tar: Readable, wanted: string): Promise<Context> {
  const { small, body } = await looked(tar);
  const place = small ? host.runDir : host.dataDir;
  mkdirSync(place, { recursive: true, mode: 0o700 });
  const directory = mkdtempSync(join(place, "context-"));
  const remove = () => rm(directory, { recursive: true, force: true });
  try {
    const root = open(directory, O_RDONLY | O_DIRECTORY);
    try {
      await host.unpack(root, body, { uid: 0, gid: 0 });
      let name = wanted || "Dockerfile";
      if (!exists(root, name)) {
        if (wanted !== "" && wanted !== "Dockerfile") throw invalidArgument(`Cannot locate specified Dockerfile: ${name}`);
        if (!exists(root, "dockerfile")) throw invalidArgument("Cannot locate specified Dockerfile: Dockerfile");
        name = "dockerfile";
      }
      const dockerfile = textOf(root, bytesOf(name));
      if (dockerfile.trim() === "") throw invalidArgument(`the Dockerfile (${name}) cannot be empty`);
      const own = textOf(root, bytesOf(`${name}.dockerignore`));
      const patterns = ignorePatterns(own || textOf(root, ".dockerignore"));
      if (patterns.length > 0) {
        const exceptions = patterns.some((pattern) => pattern.startsWith("!"));
        removeIgnored(files.rewound(root), "", createMatcher(patterns), exceptions);
      }
      return { directory, dockerfile, name, remove };
    } finally {
      close(root);
    }
  } catch (error) {
    await remove();
    throw error;
  }
}
