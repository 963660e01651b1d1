// Network namespaces that a helper makes ahead, on the real kernel: the steps alone, in a player.
import { expect, test } from "bun:test";
import { readlinkSync } from "node:fs";
import { binding, errno, pidfdSignal, readFileSync, SYS } from "../../linux/index.ts";
import { type PlayerFds, startPlayer } from "../player.ts";
import { hearNow } from "../reports.ts";
import { REPORT_FD } from "../tape.ts";
import { REPORT } from "./layout.ts";
import { cloneProcess } from "./namespaces.ts";
import { planHelper, planHelperEnd, planNetwork } from "./network.ts";
import { createPlanner, type Planner } from "./planner.ts";

const real = test.skipIf(process.getuid?.() !== 0);
const own = readlinkSync("/proc/self/ns/net");

/** Plays what `plan` puts before the report that it is ready; what is looked at there comes back. */
function played<T>(plan: (p: Planner) => void, look: (pid: number) => T): T {
  const p = createPlanner();
  plan(p);
  const ready = p.tape.bytes(new Uint8Array(Uint32Array.of(REPORT.ready, 0, 0, 0).buffer), "{ready}");
  p.tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, ready, REPORT.size], {});
  p.tape.step(SYS.ppoll, [0, 0, 0, 0, 0], { ignore: "all" });
  const none = { preserved: [], hold: [], holdStdin: -1, record: -1, notify: -1, control: -1, target: -1 };
  const fds: PlayerFds = { stdio: [-1, -1, -1], ...none };
  const player = startPlayer("jubako-test", p.tape.encode(), fds, 0);
  let told = "";
  try {
    hearNow(player.report, (report) => {
      told ||= report.tag === "failed" ? `step ${report.index} failed: ${report.errno}` : report.tag;
      return true;
    });
    expect(told).toBe("ready");
    return look(player.pid);
  } finally {
    pidfdSignal(player.pidfd, 9);
    binding.syscall(SYS.waitid, 3, player.pidfd, new Int32Array(32), 4, null);
    player.close();
  }
}

const networkOf = (pid: number) => ({
  own: readlinkSync(`/proc/${pid}/ns/net`) === own,
  // Only where it is up there is a way to oneself.
  lo: readFileSync(`/proc/${pid}/net/fib_trie`, "utf8").includes("127.0.0.1"),
});
const childrenOf = (pid: number) => readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).map(Number);

real("a process without a helper makes its own", () => {
  expect(played(planNetwork, networkOf)).toEqual({ own: false, lo: true });
});

real("the helper's is joined, and the helper is reaped", () => {
  const seen = played(
    (p) => {
      const { tape } = p;
      planHelper(p);
      const cloned = cloneProcess(p, [], true, undefined, "start the process");
      const parent = tape.label();
      tape.when(cloned.pid, "NE", 0, parent);
      planNetwork(p);
      tape.step(SYS.ppoll, [0, 0, 0, 0, 0], { ignore: "all" });
      tape.place(parent);
      planHelperEnd(p, cloned.pidfd);
    },
    (pid) => {
      const children = childrenOf(pid);
      const state = { keeper: networkOf(pid).own, children: children.length, process: networkOf(children[0]!) };
      for (const child of children) process.kill(child, 9);
      return state;
    },
  );
  expect(seen).toEqual({ keeper: true, children: 1, process: { own: false, lo: true } });
});

real("where a helper could make none, its process tries, and tells why it can't", () => {
  const steps = (p: Planner) => {
    p.tape.step(SYS.setresuid, [65534, 65534, 65534]);
    planHelper(p);
    planNetwork(p);
  };
  expect(() => played(steps, networkOf)).toThrow(`failed: ${errno.EPERM}`);
});

real("a helper ends with its maker", () => {
  const children = played(planHelper, childrenOf);
  expect(children.length).toBe(1);
  const gone = () => {
    try {
      return !readlinkSync(`/proc/${children[0]}/exe`).startsWith("/memfd:player");
    } catch {
      return true;
    }
  };
  for (let i = 0; i < 100 && !gone(); i++) Bun.sleepSync(10);
  expect(gone()).toBe(true);
});
