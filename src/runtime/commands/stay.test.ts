import { expect } from "bun:test";
import { existsSync, readlinkSync } from "node:fs";
import { bundles, main, real } from "../harness.ts";

const { id, work, bundle, cgroups, detached, jubako, run } = bundles("stay");

real("what stays with a process is a player: it passes signals on and ends as the process ends", async () => {
  bundle(["sh", "-c", "trap 'kill $!; exit 7' TERM; trap 'echo again' USR1; echo ready; sleep 100 & while :; do wait; done"]);
  const child = Bun.spawn([process.execPath, main, "jubako-runtime", "--root", `${work}/state`, "run", "-b", work, id], {
    stdin: "ignore",
    stdout: "pipe",
  });
  const reader = child.stdout.getReader();
  const heard = async (word: string) => expect(Buffer.from((await reader.read()).value!).toString()).toBe(`${word}\n`);
  await heard("ready");
  for (let i = 0; i < 200 && !readlinkSync(`/proc/${child.pid}/exe`).startsWith("/memfd:player"); i++) await Bun.sleep(10);
  expect(readlinkSync(`/proc/${child.pid}/exe`)).toStartWith("/memfd:player");
  child.kill("SIGUSR1");
  await heard("again");
  child.kill("SIGTERM");
  expect(await child.exited).toBe(7);
  expect([cgroups(), existsSync(`${work}/state/${id}`)]).toEqual(["", false]);
});

real("statuses are a shell's; what the process leaves behind is killed and removed", () => {
  expect(run(["sh", "-c", "kill -9 $$"]).status).toBe(0); // a pid namespace's init takes no signal of its own
  const hostPids = (spec: { linux?: { namespaces?: { type: string }[] } }) => {
    spec.linux!.namespaces = spec.linux!.namespaces!.filter(({ type }) => type !== "pid");
  };
  expect(run(["sh", "-c", "kill -9 $$"], hostPids).status).toBe(137);
  expect(run(["sh", "-c", "sleep 100 >/dev/null 2>&1 & exit 3"], hostPids)).toMatchObject({ status: 3, stderr: "" });
  expect([cgroups(), existsSync(`${work}/state/${id}`)]).toEqual(["", false]);
});

real("with --keep the container is still there; an exec ends as its process does", () => {
  expect(jubako("run", "--keep", "-b", bundle(["true"]), id).status).toBe(0);
  expect(JSON.parse(jubako("state", id).stdout).status).toBe("stopped");
  expect(jubako("delete", id).status).toBe(0);
  bundle(["sleep", "100"]);
  detached();
  expect(jubako("exec", id, "sh", "-c", "echo inside; exit 4")).toMatchObject({ status: 4, stdout: "inside\n" });
  expect(jubako("exec", id, "sh", "-c", "kill -15 $$").status).toBe(143);
  expect(jubako("delete", "--force", id).status).toBe(0);
});
