// Seccomp filters that ask an agent, with a real one.
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import type { Spec } from "../oci/runtime-spec.ts";
import { seccompAgent } from "./agent-harness.ts";
import { bundles, main, real } from "./harness.ts";
import { createRuntime } from "./index.ts";
import { exampleSpec } from "./spec.ts";

const { id, work, bundle, run, players } = bundles("agent");

real("a seccomp agent gets the listener and the process' state, and decides; without one nothing starts", async () => {
  const path = `${work}/agent.sock`;
  const filter = (change: Partial<NonNullable<NonNullable<Spec["linux"]>["seccomp"]>> = {}) => {
    return (spec: Spec) => {
      spec.annotations = { some: "thing" };
      spec.linux!.seccomp = {
        defaultAction: "SCMP_ACT_ALLOW",
        listenerPath: path,
        listenerMetadata: "about it",
        syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_NOTIFY" }],
        ...change,
      };
    };
  };
  const seen = seccompAgent(path);
  /** The agent here reads what it was sent when its turn comes. */
  const heardOf = async (pid: number) => {
    for (let turns = 0; turns < 500 && seen.state().pid !== pid; turns++) await Bun.sleep(10);
  };
  try {
    bundle(["sh", "-c", "mkdir /dev/shm/x; echo went on"], filter());
    const started = Bun.spawn([process.execPath, main, "jubako-runtime", "--root", `${work}/state`, "run", "-b", work, id], {
      stdin: "ignore",
      stderr: "pipe",
    });
    expect(await started.exited).toBe(0);
    expect(await new Response(started.stdout).text()).toBe("went on\n");
    expect(await new Response(started.stderr).text()).toContain("No medium found");
    const state = seen.state() as { pid: number; state: { pid: number } };
    expect(state).toEqual({
      ociVersion: exampleSpec().ociVersion,
      fds: ["seccompFd"],
      pid: state.pid,
      metadata: "about it",
      state: { ociVersion: exampleSpec().ociVersion, id, status: "creating", pid: state.pid, bundle: work, annotations: { some: "thing" } },
    } as never);
    // The same inside a shim, for a container's further processes, too.
    const spec = JSON.parse(readFileSync(`${bundle(["sleep", "100"], filter())}/config.json`, "utf8")) as Spec;
    const io = { stdin: -1, stdout: -1, stderr: -1, terminal: false, hold: [], holdStdin: -1 };
    const kept = `${work}/kept`;
    const container = await createRuntime().create({ id: `${id}-kept`, bundle: work, spec, rootfs: [], io, state: kept });
    try {
      await container.init.start();
      await heardOf(container.init.pid);
      expect((seen.state() as { pid: number }).pid).toBe(container.init.pid);
      const further = await container.exec({ execId: "e", process: { ...spec.process!, args: ["mkdir", "/dev/shm/y"] }, io });
      await further.start();
      expect((await further.exited).status).toBe(1);
      further.release();
      await heardOf(further.pid);
      expect(seen.state()).toMatchObject({ pid: further.pid, state: { pid: container.init.pid, status: "running" } });
    } finally {
      await container.delete(true);
    }
  } finally {
    seen.close();
  }
  expect(run(["true"], filter()).stderr).toContain("failed to connect with seccomp agent");
  expect(run(["true"], filter({ listenerPath: "" })).stderr).toContain("listenerPath must be set");
  expect(run(["true"], filter({ syscalls: [{ names: ["write"], action: "SCMP_ACT_NOTIFY" }] })).stderr).toContain(
    "cannot be used for the write syscall",
  );
  expect(run(["true"], filter({ syscalls: [] }))).toMatchObject({ status: 0, stderr: "" });
  expect(players()).toEqual([]);
});
