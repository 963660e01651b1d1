// AppArmor: the profile of containers that ask for none, `docker-default` as with dockerd, and which profile a container gets. The kernel knows profiles by
// apparmor_parser, which makes them of text; without that program there is no default profile (docs/decisions/apparmor.md).
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import type { HostConfig } from "../../api/types.ts";
import { messageOf, unknown } from "../../lib/errors.ts";
import { findProgram } from "../../lib/find-program.ts";
import { hasApparmor } from "../../linux/index.ts";
import type { Engine } from "../context.ts";

export const DEFAULT_PROFILE = "docker-default";
const UNCONFINED = "unconfined";
const LOADED = "/sys/kernel/security/apparmor/profiles";

/**
 * Everything but: writing to what of /proc is not a process' own and to what of /sys is no cgroup, mounting, looking into processes outside, and signals to
 * them. The masked paths once more, for programs that get around the masks.
 */
export const DEFAULT_POLICY = `
profile ${DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  signal (receive) peer=${UNCONFINED},
  signal (receive) peer={runc,crun},
  signal (send,receive) peer=${DEFAULT_PROFILE},
  ptrace (trace,read,tracedby,readby) peer=${DEFAULT_PROFILE},

  deny mount,

  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
`;

function isLoaded(): boolean {
  try {
    return readFileSync(LOADED, "utf8")
      .split("\n")
      .some((line) => line.startsWith(`${DEFAULT_PROFILE} (`));
  } catch {
    // Without securityfs nobody can tell: it is loaded once more.
    return false;
  }
}

let loading: Promise<void> | undefined;

/** Loads the default profile where it is not loaded, also where something unloaded it in the meantime. */
async function ensureDefaultProfile(parser: string): Promise<void> {
  if (isLoaded()) return;
  loading ??= load(parser).finally(() => {
    loading = undefined;
  });
  await loading;
}

function load(parser: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const why = (text: string) => unknown(`AppArmor enabled on system but the ${DEFAULT_PROFILE} profile could not be loaded: ${text}`);
    // Without its cache: the text is ours, and not a file of the system's.
    const child = spawn(parser, ["--skip-cache", "--replace"], { stdio: ["pipe", "pipe", "pipe"] });
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        if (said.length < 4096) said += chunk.toString();
      });
    child.once("error", (error) => reject(why(messageOf(error))));
    child.once("close", (status) => (status === 0 ? resolve() : reject(why(said.trim() || `exit status ${status}`))));
    child.stdin.once("error", () => {});
    child.stdin.end(DEFAULT_POLICY);
  });
}

/** The profile that a container starts with, "" where there is none; the default one is there then. `asked`: of --security-opt. */
export async function profileFor(asked: string | undefined, { Privileged }: HostConfig, log: Engine["log"]): Promise<string> {
  if (!hasApparmor()) {
    if (asked && asked !== UNCONFINED) throw unknown("AppArmor is not enabled on this host");
    return "";
  }
  if (asked) {
    if (asked === DEFAULT_PROFILE) await ensureDefaultProfile(parserOrFail());
    return asked;
  }
  if (Privileged) return UNCONFINED;
  const parser = findProgram("apparmor_parser");
  if (!parser) {
    if (!warned)
      log("warn", `AppArmor is enabled, but there is no apparmor_parser to load ${DEFAULT_PROFILE}: containers run without a profile`);
    warned = true;
    return "";
  }
  await ensureDefaultProfile(parser);
  return DEFAULT_PROFILE;
}

let warned = false;

function parserOrFail(): string {
  const parser = findProgram("apparmor_parser");
  if (!parser)
    throw unknown(`the AppArmor profile ${DEFAULT_PROFILE} needs the program apparmor_parser (Debian: apt-get install apparmor)`);
  return parser;
}
