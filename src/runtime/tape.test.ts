// The tape against the real player: its arithmetic, its errors, and that no tape, however broken, ends it by a signal.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import playerPath from "../../build/player" with { type: "file" };
import { binding, check, close, O_PATH, open, pipe, SYS, spawn } from "../linux/index.ts";
import { REPORT } from "./plan/layout.ts";
import { createTape, REPORT_FD, STATUS_FAILED, TAPE_FD, type Tape, TIMING_FD } from "./tape.ts";

const players: { name: string; fd: number }[] = [];
let directory = "";

beforeAll(() => {
  players.push({ name: "player", fd: open(playerPath, O_PATH) });
  directory = mkdtempSync(`${tmpdir()}/jubako-player-`);
  const source = `${import.meta.dir}/../../native/player.c`;
  if (!existsSync(source)) return;
  try {
    const flags = ["-std=gnu11", "-O1", "-g", "-DHOSTED", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    execFileSync("gcc", [...flags, source, "-o", `${directory}/player`], { stdio: "ignore" });
    players.push({ name: "player with sanitizers", fd: open(`${directory}/player`, O_PATH) });
  } catch {
    // no gcc here, or one without sanitizers
  }
});
afterAll(() => {
  for (const { fd } of players) close(fd);
  rmSync(directory, { recursive: true, force: true });
});

interface Played {
  status: number;
  signal: number;
  failed: { index: number; errno: number } | undefined;
  stamps: BigUint64Array;
  output: Uint8Array;
}

/** Plays a file; what it writes to descriptor 1 comes back. */
function play(exe: number, file: Uint8Array, timed = 0): Played {
  const memory = check(binding.syscall(SYS.memfd_create, "tape", 1), "memfd_create");
  const timing = check(binding.syscall(SYS.memfd_create, "timing", 1), "memfd_create");
  binding.syscall(SYS.ftruncate, timing, Math.max(16, timed * 16));
  if (file.length) check(binding.syscall(SYS.write, memory, file, file.length), "write");
  const report = pipe(0o4000);
  const out = pipe(0o4000);
  const map = new Array<number>(TIMING_FD + 1).fill(-1);
  map[1] = out.write;
  map[TAPE_FD] = memory;
  map[REPORT_FD] = report.write;
  map[TIMING_FD] = timing;
  const { pidfd } = spawn({ exe, argv: ["player"], fds: map });
  const polled = new Int32Array([pidfd, 1]);
  // A loop that never ends is a valid tape.
  if (binding.syscall(SYS.poll, polled, 1, 500) === 0) binding.syscall(SYS.pidfd_send_signal, pidfd, 9, null, 0);
  const info = new Int32Array(32);
  check(binding.syscall(SYS.waitid, 3, pidfd, info, 4, null), "waitid");
  const record = new Uint8Array(REPORT.size);
  const got = binding.syscall(SYS.read, report.read, record, record.length);
  const view = new DataView(record.buffer);
  const output = new Uint8Array(64);
  const length = Math.max(0, binding.syscall(SYS.read, out.read, output, output.length));
  const stamps = new BigUint64Array(Math.max(2, timed * 2));
  binding.syscall(SYS.pread64, timing, new Uint8Array(stamps.buffer), stamps.byteLength, 0);
  for (const fd of [memory, timing, report.read, report.write, out.read, out.write, pidfd]) close(fd);
  return {
    status: info[6]!,
    signal: info[2] === 1 ? 0 : info[6]!,
    failed: got === REPORT.size ? { index: view.getUint32(4, true), errno: Number(view.getBigInt64(8, true)) } : undefined,
    stamps,
    output: output.subarray(0, length),
  };
}

const each = (fn: (exe: number) => void) => {
  for (const { fd } of players) fn(fd);
};

test("results are stored, computed with, compared, and written out", () => {
  const tape = createTape();
  const pid = tape.word("pid");
  const sum = tape.word("sum");
  const digits = tape.room(24, "digits");
  const end = tape.label();
  tape.step(SYS.getpid, [], { store: pid });
  tape.when(pid, "EQ", 0, end);
  tape.compute("ADD", 12340, 5, sum);
  tape.compute("SHL", sum, 1, sum);
  tape.when(sum, "LT", -1, end);
  tape.decimal(sum, digits);
  tape.step(SYS.write, [1, digits, 5]);
  tape.place(end);
  tape.step(SYS.exit_group, [7]);
  each((exe) => {
    const played = play(exe, tape.encode());
    expect(Buffer.from(played.output).toString()).toBe("24690");
    expect(played).toMatchObject({ status: 7, signal: 0, failed: undefined });
  });
});

test("errors end the tape with their index, unless the step says otherwise", () => {
  const make = (fill: (tape: Tape) => void) => {
    const tape = createTape();
    fill(tape);
    return tape.encode();
  };
  const bad = [99, "x", 1] as [number, string, number];
  each((exe) => {
    expect(
      play(
        exe,
        make((t) => t.step(SYS.write, bad)),
      ),
    ).toMatchObject({ status: STATUS_FAILED, failed: { index: 0, errno: 9 } });
    expect(
      play(
        exe,
        make((t) => t.step(SYS.write, bad, { ignore: [9] })),
      ),
    ).toMatchObject({ status: 0 });
    expect(
      play(
        exe,
        make((t) => t.step(SYS.write, bad, { ignore: [2] })),
      ),
    ).toMatchObject({ failed: { index: 0, errno: 9 } });
    expect(
      play(
        exe,
        make((t) => t.step(SYS.write, bad, { ignore: "all" })),
      ),
    ).toMatchObject({ status: 0 });
    const jumping = make((t) => {
      const to = t.label();
      t.step(SYS.write, bad, { jump: { to, on: [9] } });
      t.fail(1, "never");
      t.place(to);
    });
    expect(play(exe, jumping)).toMatchObject({ status: 0, failed: undefined });
    expect(
      play(
        exe,
        make((t) => t.fail(42, "because")),
      ),
    ).toMatchObject({ status: STATUS_FAILED, failed: { index: 0, errno: 42 } });
    // Behind the data is nothing: the kernel cannot be made to write over anything.
    const overrun = make((t) => {
      const room = t.room(8, "room");
      t.step(SYS.getrandom, [room, 65536, 0], { store: t.word("n") });
      t.step(SYS.newfstatat, [-100, "/", { block: t.encode().length - 80 - 1, name: "last" }, 0]);
    });
    expect(play(exe, overrun).signal).toBe(0);
  });
});

test("a tape goes on with another, which is checked as the first was", () => {
  const files = mkdtempSync(`${tmpdir()}/jubako-tape-`);
  try {
    const next = createTape();
    next.step(SYS.write, [1, "next", 4]);
    next.step(SYS.exit_group, [3]);
    writeFileSync(`${files}/whole`, next.encode());
    writeFileSync(`${files}/half`, next.encode().subarray(0, 100));
    for (const [name, result] of [
      ["whole", { status: 3, failed: undefined }],
      ["half", { status: STATUS_FAILED, failed: { index: 0xffffffff, errno: 22 } }],
      ["none", { status: STATUS_FAILED, failed: { index: 0, errno: 2 } }],
    ] as const) {
      const tape = createTape();
      const fd = tape.word("fd");
      tape.step(SYS.openat, [-100, `${files}/${name}`, 0, 0], { store: fd });
      tape.play(fd);
      each((exe) => expect(play(exe, tape.encode())).toMatchObject(result));
    }
  } finally {
    rmSync(files, { recursive: true, force: true });
  }
});

test("relocations make vectors; execve runs", () => {
  if (!existsSync("/bin/echo")) return;
  const tape = createTape();
  tape.step(SYS.execve, ["/bin/echo", tape.vector(["echo", "played"], "argv"), tape.vector([], "env")]);
  each((exe) => expect(Buffer.from(play(exe, tape.encode()).output).toString()).toBe("played\n"));
});

test("stamps are taken where asked for", () => {
  const tape = createTape();
  tape.step(SYS.getpid, []);
  tape.step(SYS.getpid, []);
  each((exe) => {
    const { stamps } = play(exe, tape.encode(true), 2);
    expect(stamps[0]!).toBeGreaterThan(0n);
    expect(stamps[3]!).toBeGreaterThanOrEqual(stamps[0]!);
  });
});

/** A generator that gives the same numbers every time (xorshift32). */
function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Calls that do no harm with any argument. */
const harmless = [
  SYS.getpid,
  SYS.getppid,
  SYS.gettid,
  SYS.umask,
  SYS.newfstatat,
  SYS.faccessat2,
  SYS.openat2,
  SYS.clock_gettime,
  SYS.readlinkat,
];

test("no garbage ends the player by a signal", () => {
  const rnd = random(20261121);
  each((exe) => {
    for (let round = 0; round < 120; round++) {
      const tape = createTape();
      const words = [tape.word("a"), tape.word("b", 4), tape.word("c")];
      const room = tape.room(64, "room");
      const labels = Array.from({ length: 4 }, () => tape.label());
      const operand = () => [rnd(1 << 30), -rnd(1000), words[rnd(3)]!, room, "text"][rnd(5)]!;
      for (let i = 0; i < 20; i++) {
        if (i % 5 === 4) tape.place(labels[(i - 4) / 5]!);
        const to = labels[Math.min(3, Math.floor((i + 5) / 5))]!;
        const step = rnd(16) === 0 ? 5 : rnd(5);
        if (step === 0) tape.compute("ADD", operand(), operand(), words[rnd(3)]!);
        else if (step === 1) tape.when(operand(), "LT", operand(), to);
        else if (step === 2) tape.decimal(operand(), room);
        else if (step === 5) tape.play(operand());
        else
          tape.step(harmless[rnd(harmless.length)]!, [operand(), operand(), operand(), operand()], {
            ignore: rnd(2) ? "all" : [2, 9, 14],
            store: words[rnd(3)],
          });
      }
      for (const label of labels) if (label.at < 0) tape.place(label);
      const file = tape.encode();
      // From whole tapes to mostly noise. System call numbers are left alone: those of others could do harm.
      const hits = [0, 1, 3, 10, 200][rnd(5)]!;
      const view = new DataView(file.buffer);
      for (let i = 0; i < hits; i++) {
        const at = rnd(file.length);
        const inStep = (at - 32) % 80;
        const steps = view.getUint32(8, true);
        if (at >= 32 && at < 32 + 20 * 80 && (inStep < 1 || (inStep >= 4 && inStep < 8))) continue;
        if (at >= 8 && at < 24 && steps !== 20) continue;
        file[at] = rnd(256);
      }
      // A header that names other places could make data into system calls.
      const intact = view.getUint32(8, true) === 20;
      if (!intact) view.setUint32(8, rnd(2) ? 0xffffffff : 2_000_000, true);
      const { signal, status } = play(exe, file);
      expect(signal === 0 || signal === 9).toBe(true);
      // A sanitizer that found something exits with 1.
      if (!signal) expect([0, STATUS_FAILED]).toContain(status);
    }
    for (const bytes of [
      new Uint8Array(0),
      new Uint8Array(10),
      new Uint8Array(4096),
      new Uint8Array(4096).fill(255),
      readFileSync(playerPath).subarray(0, 4096),
    ]) {
      expect(play(exe, bytes)).toMatchObject({ status: STATUS_FAILED, failed: { index: 0xffffffff, errno: 22 } });
    }
  });
}, 60_000);

test("a string may be longer than all that was there before, by any number of bytes", () => {
  for (const length of [99_999, 100_000, 100_001, 100_003]) {
    const tape = createTape();
    tape.step(SYS.exit_group, ["x".repeat(length)]);
    tape.structure([7], "{7}");
    expect(tape.encode().length).toBeGreaterThan(length);
  }
});
