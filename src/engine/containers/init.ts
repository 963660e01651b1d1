// The program for --init, which is bound at /sbin/docker-init: docker-init or tini where the host has one, else one that the runtime makes.
import { existsSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { invalidArgument } from "../../lib/errors.ts";
import type { ContainerRecord } from "../context.ts";
import { DEFAULT_PATH } from "./spec/env.ts";

const NAMES = ["docker-init", "tini-static", "tini"];

function find(names: string[]): string | undefined {
  for (const name of names) {
    if (name.startsWith("/")) {
      if (existsSync(name)) return name;
      continue;
    }
    for (const directory of (process.env.PATH || "/usr/local/bin:/usr/bin:/bin").split(":")) {
      if (existsSync(`${directory}/${name}`)) return `${directory}/${name}`;
    }
  }
  return undefined;
}

/** Ours lies beside the container's other files, and is removed with them: each knows its container's program. */
export async function initProgram(record: ContainerRecord, configured: string | undefined): Promise<string> {
  const found = find(configured ? [configured] : NAMES);
  if (found) return found;
  if (configured) throw invalidArgument(`--init needs an init program, and there is none at ${configured}`);
  const { initExecutable } = await import("../../runtime/index.ts");
  const path = (record.config.Env ?? []).findLast((each) => each.startsWith("PATH="))?.slice("PATH=".length) ?? DEFAULT_PATH;
  const file = `${record.dir}/docker-init`;
  await writeFile(file, await initExecutable([record.path, ...record.args], path));
  await chmod(file, 0o755);
  return file;
}
