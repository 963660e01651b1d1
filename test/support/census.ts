// What an engine could leave behind on a host, counted: mounts, network namespaces, links, cgroups, nftables elements, processes, directories.
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { sh } from "./engine.ts";

export interface Census {
  mounts: number;
  netns: number;
  links: number;
  cgroups: number;
  nftElements: number;
  processes: number;
  /** Entries of the engine's state directories, by directory. */
  directories: Record<string, number>;
  /** Snapshots that the manager knows; directories made ahead of need are not counted. */
  snapshots: number;
}

function cgroups(): number {
  return Number(sh("find /sys/fs/cgroup -type d | grep -E '/[0-9a-f]{64}' | wc -l").stdout.trim());
}

function netns(): number {
  const seen = new Set<string>();
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      seen.add(readlinkSync(`/proc/${entry}/ns/net`));
      for (const fd of readdirSync(`/proc/${entry}/fd`)) {
        const target = readlinkSync(`/proc/${entry}/fd/${fd}`);
        if (target.startsWith("net:[")) seen.add(target);
      }
    } catch {
      // the process ended meanwhile
    }
  }
  return seen.size;
}

function nftElements(): number {
  const listed = sh("nft -j list ruleset");
  if (listed.status !== 0) return 0;
  const { nftables } = JSON.parse(listed.stdout) as { nftables: { map?: Set; set?: Set }[] };
  interface Set {
    table: string;
    elem?: unknown[];
  }
  return nftables.reduce((sum, item) => {
    const set = item.map ?? item.set;
    return set?.table.includes("jubako") ? sum + (set.elem?.length ?? 0) : sum;
  }, 0);
}

function count(dir: string): number {
  try {
    return readdirSync(dir).length;
  } catch {
    return 0;
  }
}

function snapshots(dir: string): number {
  const listed = sh(`ctr -a ${dir}/exec/containerd.sock -n moby snapshots ls`);
  return listed.status === 0 ? listed.stdout.trim().split("\n").length : 0;
}

/** `dir` is the test engine's own directory. */
export function census(dir: string): Census {
  const inState = [
    "root/containers",
    "exec/io",
    "exec/io.containerd.runtime.v2.task/moby",
    "exec/containerd/io.containerd.runtime.v2.task/moby",
  ];
  return {
    mounts: readFileSync("/proc/self/mounts", "utf8").split("\n").length,
    netns: netns(),
    links: readdirSync("/sys/class/net").length,
    cgroups: cgroups(),
    nftElements: nftElements(),
    processes: readdirSync("/proc").filter((entry) => {
      if (!/^\d+$/.test(entry)) return false;
      try {
        return readFileSync(`/proc/${entry}/cmdline`, "utf8").includes(dir);
      } catch {
        return false;
      }
    }).length,
    directories: Object.fromEntries(inState.map((path) => [path, count(join(dir, path))])),
    snapshots: snapshots(dir),
  };
}
