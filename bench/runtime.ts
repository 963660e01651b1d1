// `run` of a busybox bundle by runc and by jubako-runtime, in turns.
//   bun bench/runtime.ts [rounds]
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { report, timed, turns } from "./support/measure.ts";

const rounds = Number(process.argv[2] ?? 31);
const dir = mkdtempSync(join(tmpdir(), "jubako-bench-runtime-"));
const ours = new URL("../dist/bin/jubako-runtime", import.meta.url).pathname;

function run(runtime: string): number {
  const name = `jubako-bench-${process.pid}`;
  return timed(() => {
    const result = spawnSync(runtime, ["--root", join(dir, "state"), "run", "--bundle", dir, name], { stdio: ["ignore", "pipe", "pipe"] });
    if (result.status !== 0) throw new Error(`${runtime} run: ${result.status} ${result.stderr}`);
  });
}

try {
  mkdirSync(join(dir, "rootfs/bin"), { recursive: true });
  cpSync("/bin/busybox", join(dir, "rootfs/bin/busybox"));
  for (const applet of ["sh", "true", "sleep"]) symlinkSync("busybox", join(dir, "rootfs/bin", applet));
  const spec = spawnSync("runc", ["spec", "--bundle", dir], { encoding: "utf8" });
  if (spec.status !== 0) throw new Error(`runc spec: ${spec.stderr}`);
  const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8")) as { process: { terminal: boolean; args: string[] } };
  config.process.terminal = false;
  config.process.args = ["true"];
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  const result = turns(
    rounds,
    () => run("runc"),
    () => run(ours),
  );
  report(`OCI runtime (medians of ${rounds} rounds in turns)`, "runc", [
    { what: "`run` of a busybox bundle", unit: "ms", goal: "> 1", ...result },
  ]);
} finally {
  rmSync(dir, { recursive: true, force: true });
}
