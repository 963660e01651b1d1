// The runtime's commands by the lean host, beside Bun: what they do on their own, and that nobody can tell them apart.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { entryOf } from "../scripts/build-lean.ts";
import { AF_UNIX, binding, check, close, O_CLOEXEC, O_NONBLOCK, read, SYS, textOf, unixAddress, utf8 } from "../src/linux/index.ts";
import type { Hook, Spec } from "../src/oci/runtime-spec.ts";
import { hierarchies } from "../src/runtime/cgroups/index.ts";
import { exampleSpec } from "../src/runtime/spec.ts";
import { bin, type Output, root, which } from "./support/engine.ts";

const lean = bin("jubako-runtime");
const whole = join(root, "dist/jubako");
const busybox = which("busybox");
const real = test.skipIf(!existsSync(join(root, "build/lean")) || process.getuid?.() !== 0 || !busybox);
const id = `jubako-lean-${process.pid}`;
let work = "";
/** The lean host with no program beside it to leave things to. */
let alone = "";

beforeAll(() => {
  if (!busybox) return;
  work = mkdtempSync(join(tmpdir(), "jubako-lean-"));
  mkdirSync(join(work, "rootfs/bin"), { recursive: true });
  copyFileSync(busybox, join(work, "rootfs/bin/busybox"));
  for (const name of ["sh", "sleep", "echo", "grep", "ls"]) symlinkSync("busybox", join(work, "rootfs/bin", name));
  mkdirSync(join(work, "alone/bin"), { recursive: true });
  alone = join(work, "alone/bin/jubako-runtime");
  copyFileSync(lean, alone);
});
afterAll(() => {
  if (!work) return;
  for (const each of [id, `${id}-b`]) by(bin("jubako-runtime"), "delete", "--force", each);
  rmSync(work, { recursive: true, force: true });
});

function by(program: string, ...args: string[]): Output {
  const name = program === whole ? ["jubako-runtime"] : [];
  // What a container keeps open must not be this test's pipe.
  const script = '"$@" </dev/null >"$0/out" 2>"$0/err"; echo $?; cat "$0/out"; echo; echo =====; cat "$0/err"';
  const { stdout } = spawnSync("sh", ["-c", script, work, program, ...name, "--root", join(work, "state"), ...args], {
    encoding: "utf8",
    timeout: 60_000,
  });
  const [status, rest = ""] = [stdout.slice(0, stdout.indexOf("\n")), stdout.slice(stdout.indexOf("\n") + 1)];
  const [out = "", err = ""] = rest.split("\n=====\n");
  return { status: Number(status), stdout: out, stderr: err };
}

function bundle(args: string[], change: (spec: Spec) => void = () => {}): string {
  const spec = exampleSpec();
  spec.process!.args = args;
  spec.process!.terminal = false;
  change(spec);
  writeFileSync(join(work, "config.json"), JSON.stringify(spec));
  return work;
}

/** What a command line says of a container from its beginning to its end. */
function life(alone: string): void {
  expect(by(alone, "run", "-b", bundle(["sh", "-c", "echo hello; exit 5"]), id)).toEqual({ status: 5, stdout: "hello\n", stderr: "" });
  // Planned once, and filled in since.
  expect(by(alone, "run", "-b", work, id)).toEqual({ status: 5, stdout: "hello\n", stderr: "" });
  bundle(["sleep", "100"]);
  expect(by(alone, "create", "-b", work, "--pid-file", join(work, "pid"), id)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(JSON.parse(by(alone, "state", id).stdout)).toMatchObject({ id, status: "created", bundle: work });
  expect(by(alone, "create", "-b", work, id)).toMatchObject({ status: 1, stderr: expect.stringContaining("already exists") });
  expect(by(alone, "start", id)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(by(alone, "exec", id, "sh", "-c", "echo from within; exit 3")).toEqual({ status: 3, stdout: "from within\n", stderr: "" });
  expect(by(alone, "exec", id, "nonsense")).toMatchObject({
    status: 255,
    stderr: expect.stringContaining("executable file not found in $PATH"),
  });
  expect(by(alone, "exec", "--detach", "--pid-file", join(work, "pid"), id, "sleep", "50").status).toBe(0);
  expect(JSON.parse(by(alone, "ps", "--format", "json", id).stdout)).toHaveLength(2);
  for (const command of [["pause"], ["resume"], ["update", "--pids-limit", "20"]])
    expect(by(alone, ...command, id)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(by(alone, "delete", id)).toMatchObject({ status: 1, stderr: expect.stringContaining("not stopped") });
  expect(by(alone, "list").stdout).toContain(id);
  expect(by(alone, "kill", id, "KILL").status).toBe(0);
  for (let turn = 0; turn < 200 && !by(alone, "state", id).stdout.includes("stopped"); turn++) Bun.sleepSync(10);
  expect(by(alone, "delete", id)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(by(alone, "list", "-q").stdout).toBe("");
}

real("a container's whole life takes nothing but the lean host", () => life(alone));

real(
  "the same with its C under AddressSanitizer and UBSan",
  () => {
    const sanitized = join(work, "alone/bin/sanitized");
    const flags = [
      "-std=gnu11",
      "-O1",
      "-g",
      "-fsanitize=address,undefined",
      "-fno-sanitize-recover=all",
      `-DFILES="${join(root, "build/lean.files")}"`,
    ];
    const engine = [join(root, "build/quickjs/usr/lib/x86_64-linux-gnu/quickjs/libquickjs.a"), "-lm"];
    const include = ["-isystem", join(root, "build/quickjs/usr/include/quickjs")];
    const built = spawnSync("gcc", [...flags, ...include, join(root, "native/lean.c"), "-o", sanitized, ...engine], { encoding: "utf8" });
    expect(built.stderr).toBe("");
    // QuickJS' own memory goes with the process.
    process.env.ASAN_OPTIONS = "detect_leaks=0";
    try {
      life(sanitized);
    } finally {
      delete process.env.ASAN_OPTIONS;
    }
  },
  120_000,
);

/** Names of what the language has, as far as it lies on its objects and their prototypes. */
const NAMES = `
  const seen = new Set(), names = new Set();
  const look = (object) => {
    if (object === null || (typeof object !== "object" && typeof object !== "function") || seen.has(object)) return;
    seen.add(object);
    for (const key of Object.getOwnPropertyNames(object)) {
      names.add(key);
      const { value } = Object.getOwnPropertyDescriptor(object, key);
      look(value);
    }
    look(Object.getPrototypeOf(object));
  };
  const globals = ["Object", "Function", "Array", "String", "Number", "BigInt", "Boolean", "Symbol", "Math", "JSON", "Reflect", "Map", "Set", "WeakMap",
    "WeakSet", "WeakRef", "Promise", "Proxy", "RegExp", "Date", "Error", "AggregateError", "ArrayBuffer", "DataView", "Uint8Array",
    "Float32Array", "Iterator", "DisposableStack", "SuppressedError", "structuredClone", "queueMicrotask"];
  for (const name of globals) if (globalThis[name] !== undefined) { names.add(name); look(globalThis[name]); }
  for (const each of [[][Symbol.iterator](), new Map().entries(), (function* () {})(), (async function* () {})(), "".matchAll(/x/g)]) look(each);
`;

real("nothing is asked of the engine that it has not", () => {
  const source = `${NAMES} const text = host.encode([...names].join(" ")); host.syscall(1, 1, host.address(text), text.byteLength - 1); host.syscall(231, 0);`;
  const code = spawnSync(join(root, "build/lean-compiler"), ["main.js"], { input: source }).stdout;
  writeFileSync(join(work, "names.files"), entryOf("main.js", code));
  const built = spawnSync("sh", [join(root, "scripts/build-native.sh"), "lean", join(work, "names.files"), join(work, "names")], {
    encoding: "utf8",
  });
  expect(built.stderr).toBe("");
  const theirs = new Set(spawnSync(join(work, "names"), { encoding: "utf8" }).stdout.split(" "));
  expect(theirs.has("findLast")).toBe(true);
  const all = new Function(`${NAMES} return names`)() as Set<string>;
  const bytecode = readFileSync(join(root, "build/lean.files"));
  // A string in bytecode: twice its length, then itself.
  // Names of our own, too.
  for (const name of ["drop", "resize"]) all.delete(name);
  const asked = [...all].filter(
    (name) => !theirs.has(name) && name.length < 64 && bytecode.includes(Buffer.from(`${String.fromCharCode(2 * name.length)}${name}`)),
  );
  expect(asked).toEqual([]);
});

real("hooks of all kinds, one that fails, one that takes too long", () => {
  const script = (text: string, timeout?: number) => ({ path: "/bin/sh", args: ["sh", "-c", text], ...(timeout ? { timeout } : {}) });
  const told = (kind: string) => script(`read -r state; echo "${kind} \\"\${state%%,*}\\"" >>${work}/hooks`);
  const kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] as const;
  bundle(["busybox", "true"], (spec) => {
    spec.hooks = { startContainer: [{ path: "/bin/busybox", args: ["busybox", "true"] }] };
    for (const kind of kinds) spec.hooks[kind] = [told(kind)];
  });
  const heard = () => {
    const lines = readFileSync(join(work, "hooks"), "utf8").trimEnd().split("\n");
    rmSync(join(work, "hooks"));
    return lines;
  };
  const all = kinds.map((kind) => `${kind} "{"ociVersion":"${exampleSpec().ociVersion}""`);
  // It stays, for poststop.
  expect(by(alone, "run", "-b", work, id)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(heard()).toEqual(all);
  expect(by(alone, "create", "-b", work, id)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(by(alone, "start", id)).toEqual({ status: 0, stdout: "", stderr: "" });
  for (let turn = 0; turn < 200 && !by(alone, "state", id).stdout.includes("stopped"); turn++) Bun.sleepSync(10);
  expect(by(alone, "delete", id)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(heard()).toEqual(all);
  const failing: [Hook, string][] = [
    [script("echo to stdout; echo to stderr >&2; exit 3"), "exit status 3, stdout: to stdout\n, stderr: to stderr\n"],
    [script("head -c 300000 /dev/zero | tr '\\0' x; kill -9 $$"), `signal: killed, stdout: ${"x".repeat(4096)}, stderr: `],
    [script("sleep 50", 1), "hook ran past specified timeout of 1s"],
    [{ path: "/nonsense" }, "/nonsense: no such file or directory"],
  ];
  for (const [hook, words] of failing) {
    bundle(["echo", "hello"], (spec) => {
      spec.hooks = { createRuntime: [hook] };
    });
    const failed = by(alone, "--log-format", "json", "run", "-b", work, id);
    expect(failed).toMatchObject({ status: 1, stdout: "" });
    expect(JSON.parse(failed.stderr).msg).toBe(`runc run failed: error running createRuntime hook #0: error running hook: ${words}`);
    expect(by(alone, "list", "-q").stdout).toBe("");
  }
});

real("who closes standard input and outputs gets no file in their place", () => {
  bundle(["sh", "-c", "ls -l /proc/self/fd >/fds; exit 4"]);
  writeFileSync(join(work, "config.json"), readFileSync(join(work, "config.json"), "utf8").replace('"readonly":true', '"readonly":false'));
  const closed = ["-c", '"$@" 0<&- 1>&- 2>&-', "sh", alone, "--root", join(work, "state"), "run", "-b", work, id];
  expect(spawnSync("sh", closed).status).toBe(4);
  const targets = readFileSync(join(work, "rootfs/fds"), "utf8").match(/[012] -> .*/g);
  expect(targets).toEqual(["0 -> /dev/null", "1 -> /fds", "2 -> /dev/null"]);
});

real("an output that nobody reads is an error, not a signal's end; the container's program has the signals' defaults", () => {
  const status = (program: string) => {
    const unread = '{ sleep 0.2; "$@" 2>/dev/null; echo $? >&3; } 3>"$0" | true';
    spawnSync("sh", ["-c", unread, join(work, "status"), program, ...(program === whole ? ["jubako-runtime"] : []), "--version"]);
    return readFileSync(join(work, "status"), "utf8").trim();
  };
  expect(status(alone)).toBe(status(whole));
  bundle(["grep", "SigIgn", "/proc/self/status"]);
  expect(by(alone, "run", "-b", work, id).stdout).toMatch(/^SigIgn:\t0+\n$/);
});

test.skipIf(!which("script"))("a terminal: what is typed, its size, changes of it, and it is left as it was", () => {
  if (!alone) return;
  const inTerminal = (script: string, input = "") => {
    const rt = `rt() { ${alone} --root ${work}/state "$@"; }; stty cols 100 rows 30`;
    const command = `${rt}; stty -g >${work}/before; ${script}; echo $?; stty -g >${work}/after`;
    const { stdout } = spawnSync("script", ["-qec", command, "/dev/null"], { encoding: "utf8", input, timeout: 60_000 });
    expect(readFileSync(join(work, "after"), "utf8")).toBe(readFileSync(join(work, "before"), "utf8"));
    // What is typed is shown, by one terminal or by both; the end of the input as a NUL.
    const lines = stdout
      .replace(/\r|\^@/g, "")
      .trimEnd()
      .split("\n");
    return lines.filter((line) => line !== input.trimEnd());
  };
  const terminal = (spec: Spec) => {
    spec.process!.terminal = true;
  };
  bundle(["sh", "-c", "busybox tty; busybox stty size; read -r line; echo got $line; exit 6"], terminal);
  expect(inTerminal(`rt run -b ${work} ${id}`, "typed\n")).toEqual(["/dev/pts/0", "30 100", "got typed", "6"]);
  // More than the terminal takes at once, of a file and of a pipe.
  writeFileSync(join(work, "typed"), `${"x".repeat(79)}\n`.repeat(1250));
  bundle(["sh", "-c", "busybox stty raw -echo; echo ready; sleep 0.2; busybox head -c 100000 | busybox wc -c"], terminal);
  const typed = `until grep -q ready ${work}/said; do sleep 0.1; done; cat ${work}/typed`;
  for (const given of [`rt run -b ${work} ${id} <${work}/typed`, `(${typed}) | rt run -b ${work} ${id}`])
    expect(inTerminal(`>${work}/said; ${given} >${work}/said; tail -n 1 ${work}/said`)[0]).toBe("100000");
  // Who reads it may go before it ends.
  bundle(["sh", "-c", "echo one; sleep 0.3; echo two; sleep 0.1; exit 5"], terminal);
  expect(inTerminal(`{ rt run -b ${work} ${id}; echo $? >&2; } | head -n 1`)).toEqual(["one", "5", "0"]);
  expect(by(alone, "list", "-q").stdout).toBe("");
  rmSync(join(work, "said"));
  const script = "trap 'busybox stty size; exit 3' WINCH; echo ready; while :; do sleep 0.1; done";
  bundle(["sh", "-c", script], terminal);
  const resize = `until [ -s ${work}/said ]; do sleep 0.1; done; stty cols 50`;
  const run = `exec 3<&0; rt run -b ${work} ${id} <&3 >${work}/said & ${resize}; wait $!`;
  expect(inTerminal(run)).toEqual(["3"]);
  expect(readFileSync(join(work, "said"), "utf8").replaceAll("\r", "")).toEndWith("30 50\n");
  bundle(["sleep", "100"]);
  expect(by(alone, "run", "--detach", "-b", work, id).status).toBe(0);
  expect(inTerminal(`rt exec -t ${id} sh -c 'busybox tty; exit 4'`)).toEqual(["/dev/pts/0", "4"]);
  expect(by(alone, "delete", "--force", id).status).toBe(0);
});

real("signals go to the process where this stays for its poststop hooks", async () => {
  bundle(["sh", "-c", "trap 'echo again' USR1; trap 'echo over; exit 7' TERM; echo ready; while :; do sleep 0.1; done"], (spec) => {
    spec.hooks = { poststop: [{ path: "/bin/sh", args: ["sh", "-c", `echo ended >${work}/poststop`] }] };
  });
  const child = Bun.spawn([alone, "--root", join(work, "state"), "run", "-b", work, id], { stdin: "ignore", stdout: "pipe" });
  const reader = child.stdout.getReader();
  for (const [word, signal] of [
    ["ready", "SIGUSR1"],
    ["again", "SIGTERM"],
  ] as const) {
    expect(Buffer.from((await reader.read()).value!).toString()).toBe(`${word}\n`);
    while (!/^SigBlk:\t.*[1-9a-f]/m.test(readFileSync(`/proc/${child.pid}/status`, "utf8"))) await Bun.sleep(5);
    child.kill(signal);
  }
  expect(await child.exited).toBe(7);
  expect(readFileSync(join(work, "poststop"), "utf8")).toBe("ended\n");
});

real("$NOTIFY_SOCKET: what the program says reaches systemd while this stays with it", async () => {
  const systemd = check(binding.syscall(SYS.socket, AF_UNIX, 2 | O_CLOEXEC | O_NONBLOCK, 0), "socket");
  const program = check(binding.syscall(SYS.socket, AF_UNIX, 2 | O_CLOEXEC, 0), "socket");
  try {
    const host = `@${id}`;
    const address = unixAddress(`\0${id}`);
    check(binding.syscall(SYS.bind, systemd, address, address.length), "bind");
    bundle(["sh", "-c", "until [ -e /dev/shm/over ]; do sleep 0.1; done; exit 6"]);
    const command = [alone, "--root", join(work, "state"), "run", "-b", work, id];
    const child = Bun.spawn(command, { env: { ...process.env, NOTIFY_SOCKET: host }, stdin: "ignore", stdout: "ignore" });
    for (let turn = 0; turn < 500 && !by(alone, "state", id).stdout.includes('"running"'); turn++) await Bun.sleep(5);
    const own = unixAddress(join(work, `state/${id}/notify/notify.sock`));
    check(binding.syscall(SYS.sendto, program, utf8("READY=1\n"), 8, 0, own, own.length), "sendto");
    const { pid } = JSON.parse(by(alone, "state", id).stdout) as { pid: number };
    expect(by(alone, "exec", id, "sh", "-c", "echo >/dev/shm/over").status).toBe(0);
    expect(await child.exited).toBe(6);
    const buffer = new Uint8Array(256);
    const said = [0, 1].map(() => textOf(buffer.subarray(0, read(systemd, buffer))));
    expect(said).toEqual(["READY=1\n", `MAINPID=${pid}\n`]);
  } finally {
    for (const fd of [systemd, program]) close(fd);
  }
});

test.skipIf(!which("ip"))("network devices of the host's", () => {
  if (!alone) return;
  const device = `jbk${process.pid}`;
  const move = (name: string) => {
    bundle(["busybox", "ip", "addr", "show", name], (spec) => {
      spec.linux!.netDevices = { [device]: { name } };
    });
    return by(alone, "run", "-b", work, id);
  };
  expect(spawnSync("ip", ["link", "add", device, "type", "veth", "peer", "name", `${device}p`]).status).toBe(0);
  try {
    spawnSync("ip", ["addr", "add", "10.231.8.9/24", "dev", device]);
    expect(move("lo").stderr).toContain(
      `move network device ${device} into the container as lo: the container's network has a device of that name`,
    );
    expect(move("eth7")).toMatchObject({ status: 0, stdout: expect.stringContaining("10.231.8.9/24"), stderr: "" });
  } finally {
    spawnSync("ip", ["link", "del", `${device}p`]);
  }
});

real("a unit of systemd's", () => {
  const log = join(work, "manager.log");
  const manager = spawn(process.execPath, [join(root, "test/support/systemd-manager.ts"), join(work, "bus"), log], { stdio: "inherit" });
  for (let turn = 0; turn < 500 && !existsSync(join(work, "bus")); turn++) Bun.sleepSync(10);
  process.env.DBUS_SYSTEM_BUS_ADDRESS = `unix:path=${work}/nowhere;unix:path=${work}/bus`;
  const sd = (program: string, name: string, ...args: string[]) => {
    bundle(args, (spec) => {
      spec.linux!.cgroupsPath = `jubako.slice:lean:${name}`;
      spec.linux!.resources = { memory: { limit: 64 << 20 }, pids: { limit: 20 } };
      spec.annotations = { "org.systemd.property.TimeoutStopSec": "7" };
    });
    writeFileSync(log, "");
    const outcome = by(program, "--systemd-cgroup", "run", "-b", work, id);
    const said = readFileSync(log, "utf8").replace(/"PIDs",{"signature":"au","value":\[\d+\]}/, "PIDS");
    return { ...plain(outcome), said };
  };
  try {
    const done = sd(alone, "one", "sh", "-c", "grep pids /proc/self/cgroup; exit 4");
    expect(done).toMatchObject({ status: 4, stdout: expect.stringContaining(":/jubako.slice/lean-one.scope"), stderr: "" });
    const asked = done.said.split("\n").map((line) => line.slice(0, line.indexOf(",")));
    expect(asked.filter((line) => /Unit/.test(line))).toEqual(['["StartTransientUnit"', '["StopUnit"', '["ResetFailedUnit"']);
    expect(done.said).toContain(`["MemoryLimit",{"signature":"t","value":"${64 << 20}"}]`);
    expect(done.said).toContain('["TimeoutStopUSec",{"signature":"t","value":"7000000"}]');
    for (const name of ["one", "refused", "failed"]) expect(sd(alone, name, "echo", "hello")).toEqual(sd(whole, name, "echo", "hello"));
    expect(by(alone, "list", "-q").stdout).toBe("");
  } finally {
    delete process.env.DBUS_SYSTEM_BUS_ADDRESS;
    manager.kill("SIGKILL");
    for (const mountPoint of hierarchies().mounts.values())
      if (existsSync(`${mountPoint}/jubako.slice`)) rmdirSync(`${mountPoint}/jubako.slice`);
  }
});

real("what it lacks is done by Bun, and nothing is left of the attempt", () => {
  // A filter that nobody has compiled before.
  bundle(["echo", "hello"], (spec) => {
    const rule = { names: ["mkdir"], action: "SCMP_ACT_ERRNO", errnoRet: process.pid % 4000 };
    spec.linux!.seccomp = { defaultAction: "SCMP_ACT_ALLOW", syscalls: [rule, { ...rule, names: [`nonsense${Date.now()}`] }] };
  });
  const missing = by(alone, "run", "-b", work, id);
  expect(missing).toMatchObject({ status: 127, stderr: expect.stringContaining("alone/jubako can't be run, which this takes") });
  expect(by(alone, "state", id).status).toBe(1);
  expect(by(bin("jubako-runtime"), "run", "-b", work, id)).toEqual({ status: 0, stdout: "hello\n", stderr: "" });
  expect(by(alone, "run", "-b", work, id)).toEqual({ status: 0, stdout: "hello\n", stderr: "" });
  expect(by(alone, "features").status).toBe(127);
  expect(JSON.parse(by(bin("jubako-runtime"), "features").stdout)).toMatchObject({ ociVersionMin: "1.0.0" });
});

/** What differs between two runs of one program. */
function plain({ status, stdout, stderr }: Output): Output {
  const change = (text: string) =>
    text
      .replace(/time="[^"]*"|"time":"[^"]*"|\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME")
      .replace(/"pid": \d+|\bpid \d+|\[\d+(,\d+)*\]/g, "PID")
      .replace(/^(\S+ +)\d+( .*)$/gm, "$1PID$2");
  return { status, stdout: change(stdout), stderr: change(stderr) };
}

const flawed: [what: string, change: (spec: Spec) => void][] = [
  [
    "no program",
    (spec) => {
      spec.process!.args = ["/nonsense"];
    },
  ],
  [
    "no arguments",
    (spec) => {
      spec.process!.args = [];
    },
  ],
  [
    "a relative directory",
    (spec) => {
      spec.process!.cwd = "tmp";
    },
  ],
  [
    "a directory that is a file",
    (spec) => {
      spec.process!.cwd = "/bin/busybox";
    },
  ],
  [
    "no root",
    (spec) => {
      spec.root = { path: "nowhere" };
    },
  ],
  [
    "a source that is not there",
    (spec) => void spec.mounts!.push({ destination: "/x", source: "/nonsense", type: "bind", options: ["bind"] }),
  ],
  ["a file system that is none", (spec) => void spec.mounts!.push({ destination: "/x", source: "x", type: "nonsense", options: [] })],
  [
    "a wrong type",
    (spec) => {
      (spec.linux as { resources: unknown }).resources = { pids: { limit: "many" } };
    },
  ],
  ["an unknown namespace", (spec) => void spec.linux!.namespaces!.push({ type: "nonsense" as never })],
  [
    "an unknown limit",
    (spec) => {
      spec.process!.rlimits = [{ type: "RLIMIT_NONSENSE", soft: 1, hard: 1 }];
    },
  ],
  [
    "a setting that is none",
    (spec) => {
      spec.linux!.sysctl = { "kernel.nonsense": "1" };
    },
  ],
  [
    "a filter of nonsense",
    (spec) => {
      spec.linux!.seccomp = { defaultAction: "SCMP_ACT_NONSENSE" };
    },
  ],
  [
    "a filter",
    (spec) => {
      spec.linux!.seccomp = { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["mkdir"], action: "SCMP_ACT_ERRNO" }] };
    },
  ],
  ["a link out of the root", (spec) => void spec.mounts!.push({ destination: "/out/x", type: "tmpfs", source: "tmpfs", options: [] })],
  [
    "bytes beyond ASCII",
    (spec) => {
      spec.process!.args = ["echo", "käse 🧀", "\u0001"];
    },
  ],
  [
    "a huge argument",
    (spec) => {
      spec.process!.args = ["echo", "x".repeat(100_000)];
    },
  ],
];

real(
  "errors and answers are the same by the lean host and by Bun",
  () => {
    symlinkSync("/nonsense/deep", join(work, "rootfs/out"));
    const same = (...args: string[]) =>
      expect([args, plain(by(bin("jubako-runtime"), ...args))]).toEqual([args, plain(by(whole, ...args))]);
    same("--version");
    same("--help");
    same();
    same("nonsense");
    same("--nonsense");
    for (const command of [
      "run",
      "create",
      "start",
      "exec",
      "kill",
      "delete",
      "state",
      "list",
      "ps",
      "pause",
      "resume",
      "update",
      "spec",
      "events",
    ]) {
      same(command, "--help");
      if (command !== "list" && command !== "spec") same(command);
      if (!["list", "spec", "run", "create"].includes(command)) same(command, "nobody");
      same(command, "--nonsense");
    }
    same("--log-format", "json", "state", "nobody");
    same("run", "-b", "/nonsense", id);
    same("run", "-b", work, "a/b");
    for (const text of ["", "{", "[]", '"x"', '{"ociVersion":1}', '{"ociVersion":"1.0.0"}', "null", `{"a":${"[".repeat(100_000)}`]) {
      writeFileSync(join(work, "config.json"), text);
      const [ours, theirs] = [by(bin("jubako-runtime"), "run", "-b", work, id), by(whole, "run", "-b", work, id)];
      // Each engine has words of its own for what is no JSON.
      expect([text.slice(0, 30), ours.status]).toEqual([text.slice(0, 30), theirs.status]);
      if (!theirs.stderr.includes("not valid JSON")) expect(plain(ours)).toEqual(plain(theirs));
    }
    for (const [what, change] of flawed) {
      bundle(["echo", "hello"], change);
      const [ours, theirs] = [by(bin("jubako-runtime"), "run", "-b", work, id), by(whole, "run", "-b", work, id)];
      expect([what, plain(ours)]).toEqual([what, plain(theirs)]);
      expect(by(bin("jubako-runtime"), "list", "-q").stdout).toBe("");
    }
    bundle(["sleep", "100"]);
    expect(by(bin("jubako-runtime"), "create", "-b", work, id).status).toBe(0);
    expect(by(whole, "create", "-b", work, `${id}-b`).status).toBe(0);
    for (const args of [["list"], ["list", "-f", "json"], ["list", "-f", "nonsense"], ["state", id], ["ps", id, "-o", "nonsense"]])
      same(...args);
    for (const args of [
      ["exec", id, "true"],
      ["kill", id, "NONSENSE"],
      ["update", id, "--memory", "lots"],
      ["delete", id, id],
    ])
      same(...args);
    expect(by(bin("jubako-runtime"), "start", id).status).toBe(0);
    for (const args of [
      ["exec", id, "sh", "-c", "echo out; echo err >&2; exit 7"],
      ["exec", "--cwd", "/nonsense", id, "true"],
      ["exec", "--user", "x:y", id, "true"],
      ["exec", "--cap", "CAP_NONSENSE", id, "true"],
      ["exec", "-t", "--detach", id, "true"],
      ["start", id],
      ["resume", id],
    ])
      same(...args);
  },
  180_000,
);
