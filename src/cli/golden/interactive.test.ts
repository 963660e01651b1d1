// Work at a terminal, in a real one (tmux), against a real dockerd: raw mode, sizes, signals, detach keys, an editor, two terminals at once.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { type Daemon, OURS, run, startDockerd, which } from "./harness.ts";

const tmux = which("tmux");
let daemon: Daemon | undefined;
const socket = `jubako-cli-test-${process.pid}`;

const mux = (...args: string[]) => run([tmux!, "-L", socket, "-f", "/dev/null", ...args]);

interface Terminal {
  type(text: string): Promise<void>;
  keys(...names: string[]): Promise<void>;
  screen(): Promise<string>;
  /** Waits until the screen matches. */
  sees(pattern: RegExp): Promise<string>;
  resize(width: number, height: number): Promise<void>;
}

async function terminal(name: string): Promise<Terminal> {
  await mux("new-session", "-d", "-s", name, "-x", "90", "-y", "25", "sh");
  const screen = async () => (await mux("capture-pane", "-p", "-t", name)).out.replace(/\n+$/, "\n");
  const self: Terminal = {
    type: async (text) => void (await mux("send-keys", "-t", name, text, "Enter")),
    keys: async (...names) => void (await mux("send-keys", "-t", name, ...names)),
    screen,
    async sees(pattern) {
      for (const until = Date.now() + 8_000; Date.now() < until; ) {
        const text = await screen();
        if (pattern.test(text)) return text;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      throw new Error(`the screen never showed ${pattern}:\n${await screen()}`);
    },
    resize: async (width, height) => void (await mux("resize-window", "-t", name, "-x", String(width), "-y", String(height))),
  };
  await self.type("PS1='host> '; clear");
  await self.sees(/^host>$/m);
  return self;
}

const usable = tmux !== undefined && which("dockerd") !== undefined && which("docker") !== undefined;

describe.skipIf(!usable)("at a terminal (tmux and dockerd are on PATH)", () => {
  let j = "";
  beforeAll(async () => {
    daemon = await startDockerd();
    if (!daemon) return;
    j = `${daemon.dir}/j`;
    writeFileSync(j, `#!/bin/sh\nexport DOCKER_HOST=${daemon.host} DOCKER_CONFIG=${daemon.dir}\nexec ${OURS.join(" ")} "$@"\n`);
    chmodSync(j, 0o755);
  }, 60_000);
  afterAll(async () => {
    if (!daemon) return;
    await mux("kill-server");
    const left = (await run([...OURS, "-H", daemon.host, "ps", "-aq"])).out.split("\n").filter(Boolean);
    if (left.length > 0) await run([...OURS, "-H", daemon.host, "rm", "-f", ...left]);
    await daemon.stop();
  }, 60_000);

  test("run -it: size, resize, ctrl-c, exit status, and the terminal as before", async () => {
    if (!daemon) return;
    const t = await terminal("one");
    await t.type("stty -a > before");
    await t.type(`${j} run -it --rm --network none busybox sh`);
    await t.sees(/\/ #$/m);
    await t.type("stty size");
    await t.sees(/^25 90$/m);
    await t.resize(70, 20);
    await t.type("until [ \"$(stty size)\" = '20 70' ]; do sleep 0.1; done; echo re''sized");
    await t.sees(/^resized$/m);
    await t.type("trap 'echo cau''ght' INT; echo s''et; read x");
    await t.sees(/^set$/m);
    await t.keys("C-c");
    await t.sees(/caught$/m);
    await t.type("exit 7");
    await t.sees(/exit 7\n+host>$/m);
    await t.type("echo status $?; stty -a | diff - before | grep -v rows; rm before");
    await t.sees(/^status 7$/m);
    expect(await t.screen()).not.toContain("-icanon");
  }, 60_000);

  test("detach, attach from two terminals", async () => {
    if (!daemon) return;
    const t = await terminal("first");
    await t.type(`${j} run -it --name both --network none busybox sh`);
    await t.sees(/\/ #$/m);
    await t.keys("C-p", "C-q");
    await t.sees(/^(\/ # )?host>$/m);
    await t.type(`echo status $?; clear; ${j} attach both`);
    const u = await terminal("second");
    await u.type(`${j} attach --detach-keys a,b both`);
    await new Promise((resolve) => setTimeout(resolve, 700));
    await t.type("echo from-first");
    await t.sees(/^from-first$/m);
    await u.sees(/^from-first$/m);
    await u.type("echo from-second");
    await t.sees(/^from-second$/m);
    await u.keys("a", "b");
    await u.sees(/read escape sequence\n+host>$/m);
    await t.type("exit 3");
    await t.sees(/exit 3\n+host>$/m);
    await t.type("echo status $?");
    await t.sees(/^status 3$/m);
  }, 60_000);

  test("exec -it vi; start -ai", async () => {
    if (!daemon) return;
    const t = await terminal("editor");
    await t.type(`${j} run -d --name ed --network none busybox sleep 1000`);
    await t.sees(/[0-9a-f]{64}/);
    await t.type(`clear; ${j} exec -it ed vi /note`);
    await t.sees(/^~$/m);
    // The size comes after the start, and busybox' vi asks the terminal for it until then.
    await new Promise((resolve) => setTimeout(resolve, 700));
    await t.keys("i", "hello", "Escape");
    await t.sees(/^hello$/m);
    await t.type(":wq");
    await t.sees(/host>$/m);
    await t.type(`${j} exec ed cat /note; ${j} exec -it ed sh -c 'exit 9'; echo status $?`);
    await t.sees(/hello\n+status 9/);
    await t.type(
      `clear; ${j} create -it --name again --network none busybox sh -c 'read x; echo got $x; exit 4'; ${j} start -ai again; echo status $?`,
    );
    await t.sees(/[0-9a-f]{64}/);
    await new Promise((resolve) => setTimeout(resolve, 700));
    await t.type("words");
    await t.sees(/got words\n+status 4/);
  }, 60_000);

  test("without a terminal: input to its end, signals passed on", async () => {
    if (!daemon) return;
    const big = "0123456789\n".repeat(200_000);
    const counted = await run([j, "run", "-i", "--rm", "--network", "none", "busybox", "wc", "-c"], { input: big });
    expect(counted.out.trim()).toBe(String(big.length));
    const back = await run([j, "run", "-i", "--rm", "--network", "none", "busybox", "cat"], { input: big });
    expect(back.out.length).toBe(big.length);
    const t = await terminal("signals");
    await t.type(
      `${j} run --rm --network none busybox sh -c 'trap "echo term; exit 5" TERM; echo ready; while :; do sleep 0.1; done' & p=$!; sleep 0.1`,
    );
    await t.sees(/ready$/m);
    await t.type("kill -TERM $p; wait $p; echo status $?");
    await t.sees(/term$/m);
    await t.sees(/^status 5$/m);
  }, 60_000);
});
