// What CRIU needs in the machine: itself, what it runs, and modules that nothing loads by itself there.
import { existsSync, readdirSync } from "node:fs";
import { which } from "../support/engine.ts";
import { libraries } from "./boot.ts";
import type { Entry } from "./initramfs.ts";

const CRIU = ["criu", "ip", "tar", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"];
const diagnoses = ["unix_diag", "tcp_diag", "udp_diag", "raw_diag", "inet_diag", "netlink_diag", "af_packet_diag"];

export const CRIU_MODULES: string[] = ["nft_compat", "xt_mark", ...diagnoses];

/** Whether one of CRIU's programs, or of `others`, is missing; says so in the form that the test runner collects. */
export function criuLacks(...others: string[]): boolean {
  const missing = [...CRIU, ...others].find((name) => !which(name));
  if (missing) console.log(`skip: ${missing} not installed`);
  return missing !== undefined;
}

export function programFiles(...names: string[]): Record<string, Entry> {
  const files: Record<string, Entry> = {};
  for (const name of names) {
    const path = which(name)!;
    Object.assign(files, { [`bin/${name}`]: { from: path } }, libraries(path));
  }
  return files;
}

export function criuFiles(): Record<string, Entry> {
  const files = programFiles(...CRIU);
  // Loaded by iptables where a rule asks for them.
  const plugins = "/usr/lib/x86_64-linux-gnu/xtables";
  for (const name of existsSync(plugins) ? readdirSync(plugins) : [])
    if (/xt_(mark|standard)/i.test(name)) files[`${plugins.slice(1)}/${name}`] = { from: `${plugins}/${name}` };
  return files;
}
