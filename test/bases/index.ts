// The base images for tests: made once in build/test-bases (make.ts), served by jubako-registry from a copy of that directory, so that tests may push.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { endDaemon } from "../support/daemon.ts";
import { bin, lacks, root, until } from "../support/engine.ts";
import { freePort } from "../support/registry.ts";

const place = join(root, "build/test-bases");

const DEBIAN = "debian:bookworm-slim";
/** The files of Debian's base, as a directory (an overlay's upper one, on nothing). */
export const debianFiles = join(place, "files/debian_bookworm-slim");
/** An apt repository: packages and their index. */
export const repository = join(place, "debs");

/** Makes what is missing, or waits for who makes it; false (with a word why) where this machine can't. Minutes the first time. */
export function makeBases(): boolean {
  if (lacks("debootstrap", "flock", "unshare", "npm")) return false;
  mkdirSync(place, { recursive: true });
  const made = spawnSync("flock", [join(place, "lock"), process.execPath, join(root, "test/bases/make.ts")], { encoding: "utf8" });
  if (made.status === 0) return true;
  console.log(`skip: base images could not be made: ${made.stderr.trim().split("\n").slice(-5).join(" | ")}`);
  return hasBase(DEBIAN);
}

const fileOf = (name: string) => join(place, name.replace(":", "_"));

export const hasBase = (name: string): boolean => existsSync(`${fileOf(name)}.json`);

/** The digests of a base image's layers, uncompressed, lowest first, and what is in it; undefined where it could not be made. */
export function baseImage(name: string): { diffIds: string[]; tree: Record<string, string> } | undefined {
  const file = fileOf(name);
  if (!hasBase(name)) return undefined;
  const { layers } = JSON.parse(readFileSync(`${file}.json`, "utf8")) as { layers: { diffId: string }[] };
  return { diffIds: layers.map(({ diffId }) => diffId), tree: JSON.parse(readFileSync(`${file}.tree`, "utf8")) as Record<string, string> };
}

export interface BaseRegistry {
  /** "127.0.0.1:PORT" */
  address: string;
  stop(): Promise<void>;
}

export async function startBaseRegistry(): Promise<BaseRegistry> {
  // beside the original, so that blobs can be links
  const dir = mkdtempSync(join(place, "registry-"));
  const copied = spawnSync("cp", ["-al", `${place}/registry/docker`, dir], { encoding: "utf8" });
  if (copied.status !== 0) cpSync(`${place}/registry/docker`, `${dir}/docker`, { recursive: true });
  const address = `127.0.0.1:${await freePort()}`;
  const child: ChildProcess = spawn(bin("jubako-registry"), ["serve", "--addr", address, "--root", dir], { stdio: "ignore" });
  const stop = async () => {
    await endDaemon(child);
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    await until("the registry answers", () =>
      fetch(`http://${address}/v2/`).then(
        (answer) => answer.ok,
        () => false,
      ),
    );
  } catch (error) {
    await stop();
    throw error;
  }
  return { address, stop };
}
