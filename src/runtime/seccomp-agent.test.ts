// Seccomp filters that ask an agent, with a real one.
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { binding, check, close, EPOLLIN, SYS, watch } from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import { bundles, main, real } from "./harness.ts";
import { createRuntime } from "./index.ts";
import { exampleSpec } from "./spec.ts";

const { id, work, bundle, run, players } = bundles("agent");

// linux/seccomp.h
const SECCOMP_IOCTL_NOTIF_RECV = 0xc0502100;
const SECCOMP_IOCTL_NOTIF_SEND = 0xc0182101;
const ENOMEDIUM = 123;

/** Takes the state and the listener of one process, then answers every call that it hears of with an error. */
function agent(path: string): { state: () => Record<string, unknown>; close(): void } {
  const address = new Uint8Array(2 + Buffer.byteLength(path) + 1);
  address[0] = 1;
  address.set(Buffer.from(path), 2);
  const socket = check(binding.syscall(SYS.socket, 1, 1 | 0o2000000, 0), "socket");
  check(binding.syscall(SYS.bind, socket, address, address.length), "bind");
  check(binding.syscall(SYS.listen, socket, 4), "listen");
  let state: Record<string, unknown> = {};
  const open: { close(): void }[] = [];
  const waiting = watch(socket, EPOLLIN, () => {
    const peer = check(binding.syscall(SYS.accept4, socket, null, null, 0o2000000), "accept");
    const text = new Uint8Array(8192);
    const control = new Uint8Array(64);
    const iov = new BigUint64Array([BigInt(binding.address(text)), BigInt(text.length)]);
    const header = new BigUint64Array([0n, 0n, BigInt(binding.address(iov)), 1n, BigInt(binding.address(control)), 64n, 0n]);
    const n = check(binding.syscall(SYS.recvmsg, peer, header, 0), "recvmsg");
    void iov;
    close(peer);
    state = JSON.parse(Buffer.from(text.subarray(0, n)).toString());
    const listener = new DataView(control.buffer).getInt32(16, true);
    const listening = watch(listener, EPOLLIN, () => {
      const heard = new Uint8Array(80);
      if (binding.syscall(SYS.ioctl, listener, SECCOMP_IOCTL_NOTIF_RECV, heard) < 0) return listening.close();
      // struct seccomp_notif_resp: id, val, error, flags
      const answer = new DataView(new ArrayBuffer(24));
      answer.setBigUint64(0, new DataView(heard.buffer).getBigUint64(0, true), true);
      answer.setInt32(16, -ENOMEDIUM, true);
      binding.syscall(SYS.ioctl, listener, SECCOMP_IOCTL_NOTIF_SEND, new Uint8Array(answer.buffer));
    });
    open.push({
      close() {
        listening.close();
        close(listener);
      },
    });
  });
  return {
    state: () => state,
    close() {
      waiting.close();
      close(socket);
      for (const each of open) each.close();
    },
  };
}

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
  const seen = agent(path);
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
      expect((seen.state() as { pid: number }).pid).toBe(container.init.pid);
      const further = await container.exec({ execId: "e", process: { ...spec.process!, args: ["mkdir", "/dev/shm/y"] }, io });
      await further.start();
      expect((await further.exited).status).toBe(1);
      further.release();
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
