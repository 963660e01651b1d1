// start and delete by the launcher and a container's own tape, beside a program that says when it was asked instead.
import { afterAll, expect } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { bundles, main, real } from "./harness.ts";
import { runtimeLauncher } from "./launcher.ts";

const { id, work, bundle, cgroups, jubako } = bundles("life");
const bin = `${work}/bin`;
mkdirSync(bin);
writeFileSync(`${bin}/jubako-runtime`, runtimeLauncher(), { mode: 0o755 });
writeFileSync(`${work}/jubako`, `#!/bin/sh\necho "$@" >>${work}/asked\nexec ${process.execPath} ${main} jubako-runtime "$@"\n`, {
  mode: 0o755,
});
const root = `${work}/state`;
afterAll(() => rmSync(bin, { recursive: true, force: true }));

/** What the launcher does, and what it left to the program. */
function launch(...args: string[]): { status: number; stderr: string; asked: string } {
  rmSync(`${work}/asked`, { force: true });
  const { exitCode, stderr } = Bun.spawnSync([`${bin}/jubako-runtime`, ...args], { stdin: "ignore" });
  const asked = existsSync(`${work}/asked`) ? readFileSync(`${work}/asked`, "utf8").trim() : "";
  return { status: exitCode, stderr: stderr.toString(), asked };
}
const here = (...args: string[]) => launch("--root", root, ...args);

function create(args: string[], change?: Parameters<typeof bundle>[1]): void {
  bundle(args, change);
  const shell = `exec ${process.execPath} ${main} jubako-runtime --root ${root} create -b ${work} ${id} </dev/null >${work}/out 2>&1`;
  const made = Bun.spawnSync(["sh", "-c", shell]);
  if (made.exitCode !== 0) throw new Error(readFileSync(`${work}/out`, "utf8"));
}
const status = () => JSON.parse(jubako("state", id).stdout).status as string;
async function stopped(): Promise<void> {
  for (let i = 0; i < 200 && status() !== "stopped"; i++) await Bun.sleep(10);
  expect(status()).toBe("stopped");
}
const done = { status: 0, stderr: "", asked: "" };

real("start and delete need no program", async () => {
  create(["sh", "-c", 'echo "$HOME"']);
  expect(launch("--log", `${work}/log`, "--log-format", "json", "--root", root, "start", id)).toEqual(done);
  await stopped();
  expect(readFileSync(`${work}/out`, "utf8")).toBe("/\n");
  expect(here("delete", id)).toEqual(done);
  expect(existsSync(`${root}/${id}`)).toBe(false);
  expect(cgroups()).toBe("");
});

real("one that runs goes by force alone, one at its gate without it", () => {
  create(["sleep", "100"]);
  expect(here("start", id)).toEqual(done);
  const again = here("start", id);
  expect(again).toMatchObject({ status: 1, asked: `--root ${root} start ${id}` });
  expect(again.stderr).toContain("cannot start an already running container");
  const refused = here("delete", id);
  expect(refused).toMatchObject({ status: 1, asked: `--root ${root} delete ${id}` });
  expect(refused.stderr).toContain("is not stopped: running");
  expect(here("delete", "--force", id)).toEqual(done);
  expect(cgroups()).toBe("");
  create(["sleep", "100"]);
  expect(here("delete", id)).toEqual(done);
  expect([cgroups(), existsSync(`${root}/${id}`)]).toEqual(["", false]);
});

real("what is not as it was told is left to the program", async () => {
  create(["sleep", "100"]);
  expect(jubako("pause", id).status).toBe(0);
  // A paused one is neither started nor killed.
  expect(here("start", id).asked).not.toBe("");
  expect(jubako("resume", id).status).toBe(0);
  chmodSync(`${root}/${id}/life`, 0o622);
  expect(here("start", id).asked).not.toBe("");
  chmodSync(`${root}/${id}/life`, 0o600);
  // A file of the user's in the container's directory.
  writeFileSync(`${root}/${id}/more`, "");
  const removed = here("delete", "--force", id);
  expect([removed.status, removed.asked]).toEqual([0, `--root ${root} delete --force ${id}`]);
  expect([cgroups(), existsSync(`${root}/${id}`)]).toEqual(["", false]);

  // Written before the machine was started again, when numbers were others'.
  create(["sleep", "100"]);
  expect(here("start", id)).toEqual(done);
  const life = readFileSync(`${root}/${id}/life`);
  const at = life.indexOf(readFileSync("/proc/sys/kernel/random/boot_id", "latin1").slice(0, 8));
  expect(at).toBeGreaterThan(0);
  writeFileSync(`${root}/${id}/life`, life.fill("x", at, at + 8));
  expect(here("delete", "--force", id)).toMatchObject({ status: 0, asked: `--root ${root} delete --force ${id}` });

  create(["sh", "-c", "sleep 100 & wait"], (spec) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "pid");
  });
  expect(here("start", id)).toEqual(done);
  const processes = () => (JSON.parse(jubako("ps", "--format", "json", id).stdout) as number[]).length;
  for (let i = 0; i < 200 && processes() < 2; i++) await Bun.sleep(10);
  // The second process outlives the first: its cgroups stay until somebody kills it.
  expect(here("delete", "--force", id)).toMatchObject({ status: 0, asked: `--root ${root} delete --force ${id}` });
  expect([cgroups(), existsSync(`${root}/${id}`)]).toEqual(["", false]);

  for (const words of [["start"], ["start", id, "more"], ["delete", "--help"], ["--debug", "start", id], ["start", "../x"], []])
    expect(here(...words).asked).toBe(["--root", root, ...words].join(" "));
});

real("a program that can't be run is told of", () => {
  writeFileSync(`${work}/rootfs/bin/broken`, "no program", { mode: 0o755 });
  create(["/bin/broken"]);
  const failed = here("start", id);
  expect(failed).toMatchObject({ status: 1, asked: `--root ${root} start ${id}` });
  expect(failed.stderr).toContain("exec /bin/broken: exec format error (ENOEXEC)");
  expect(here("delete", id)).toEqual(done);
});

real("hooks for start and end are run by the program", () => {
  create(["true"], (spec) => {
    spec.hooks = { poststop: [{ path: "/bin/touch", args: ["touch", `${work}/poststop`] }] };
  });
  expect(here("start", id).asked).not.toBe("");
  expect(here("delete", "--force", id).asked).not.toBe("");
  expect(existsSync(`${work}/poststop`)).toBe(true);
});
