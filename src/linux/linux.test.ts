import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import {
  binding,
  check,
  close,
  EPOLLHUP,
  EPOLLIN,
  errno,
  O_PATH,
  O_RDONLY,
  open,
  openat2,
  pipe,
  RESOLVE_IN_ROOT,
  read,
  readApart,
  reap,
  releaseExecutable,
  SYS,
  SystemError,
  sealedMemfd,
  signalOf,
  spawn,
  spawnError,
  watch,
  writeApart,
} from "./index.ts";

test("a failed call carries its errno and says what was tried", () => {
  expect(binding.syscall(SYS.close, 9999)).toBe(-errno.EBADF);
  expect(() => open("/no/such/file", O_RDONLY)).toThrow("open /no/such/file: ENOENT (no such file or directory)");
  expect(() => binding.syscall(SYS.close, {} as never)).toThrow(TypeError);
  expect(() => binding.syscall(SYS.openat, -100, "a\0b", 0)).toThrow(TypeError);
});

test("openat2 keeps a path inside its root", () => {
  const root = open("/proc", O_PATH);
  try {
    expect(() => openat2(root, "../etc/passwd", O_RDONLY, { resolve: RESOLVE_IN_ROOT })).toThrow(SystemError);
  } finally {
    close(root);
  }
});

async function run(argv: string[], exe: number): Promise<{ status: number; signal: number | undefined; output: string }> {
  const { read: r, write: w } = pipe(0o4000);
  const { pidfd } = spawn({ exe, argv, fds: [-1, w] });
  close(w);
  const chunks: Buffer[] = [];
  await new Promise<void>((resolve) => {
    const watching = watch(r, EPOLLIN, () => {
      const buffer = Buffer.alloc(4096);
      const n = read(r, buffer);
      if (n) chunks.push(buffer.subarray(0, n));
      else if (n === 0) {
        watching.close();
        resolve();
      }
    });
  });
  close(r);
  const exit = await new Promise<ReturnType<typeof reap>>((resolve) => {
    const watching = watch(pidfd, EPOLLIN, () => {
      watching.close();
      resolve(reap(pidfd));
    });
  });
  close(pidfd);
  return { status: exit!.status, signal: exit!.signal, output: Buffer.concat(chunks).toString() };
}

test("spawn maps descriptors and nothing else, and reports how the child ended", async () => {
  const sh = open("/bin/sh", O_PATH);
  const result = await run(["sh", "-c", "echo out; ls /proc/self/fd; exit 3"], sh);
  expect(result.status).toBe(3);
  expect(result.output).toBe("out\n0\n1\n");
  expect(await run(["sh", "-c", "kill -9 $$"], sh)).toMatchObject({ status: 137, signal: 9 });
  close(sh);
});

test("spawn of what cannot be executed throws, and leaves no child", () => {
  const fd = open("/etc/passwd", O_PATH);
  expect(() => spawn({ exe: fd, argv: ["x"], fds: [] })).toThrow("EACCES");
  close(fd);
});

test("spawn ahead does not wait for the exec; that it failed is told by the child's end, and why, on demand", async () => {
  const fd = open("/etc/passwd", O_PATH);
  const sh = open("/bin/sh", O_PATH);
  const end = (pidfd: number) => {
    const info = new Int32Array(32);
    check(binding.syscall(SYS.waitid, 3, pidfd, info, 4, null), "waitid");
    close(pidfd);
    return info[6];
  };
  // Several at once, each on memory of its own.
  const running = [1, 2, 3, 4, 5].map((status) => spawn({ exe: sh, argv: ["sh", "-c", `exit ${status}`], fds: [], ahead: true }));
  expect(running.map(({ pidfd }) => end(pidfd))).toEqual([1, 2, 3, 4, 5]);
  const refused = spawn({ exe: fd, argv: ["x"], fds: [], ahead: true });
  expect(end(refused.pidfd)).toBe(127);
  expect([spawnError(refused.pid), spawnError(running[0]!.pid)]).toEqual([errno.EACCES, 0]);
  for (const each of [fd, sh]) close(each);
});

test("a sealed memfd runs and cannot be written", async () => {
  const fd = sealedMemfd("sh", readFileSync("/bin/sh"));
  expect((await run(["sh", "-c", "exit 5"], fd)).status).toBe(5);
  expect(binding.syscall(SYS.write, fd, new Uint8Array(1), 1)).toBe(-errno.EPERM);
  close(fd);
});

test("a hundred descriptors that are ready at once are all heard of, with what happened to them", async () => {
  const pipes = Array.from({ length: 100 }, () => pipe(0o4000));
  const heard = await Promise.all(
    pipes.map(
      (each, i) =>
        new Promise<number>((resolve) => {
          if (i % 2) close(each.write);
          else binding.syscall(SYS.write, each.write, new Uint8Array(1), 1);
          const watching = watch(each.read, EPOLLIN, (events) => {
            watching.close();
            resolve(events);
          });
        }),
    ),
  );
  expect(heard).toEqual(pipes.map((_, i) => (i % 2 ? EPOLLHUP : EPOLLIN)));
  pipes.forEach((each, i) => {
    close(each.read);
    if (i % 2 === 0) close(each.write);
  });
});

test("a watch keeps the program running until it is closed, unless it was asked not to", () => {
  const program = (options: object) => `
    const { binding, EPOLLIN, pipe, SYS, watch } = await import(${JSON.stringify(`${import.meta.dir}/index.ts`)});
    const { read, write } = pipe();
    const watching = watch(read, EPOLLIN, () => { console.log("heard"); watching.close(); }, ${JSON.stringify(options)});
    setTimeout(() => binding.syscall(SYS.write, write, new Uint8Array(1), 1), 50).unref();`;
  const run = (options: object) => spawnSync(process.execPath, ["-e", program(options)], { encoding: "utf8", timeout: 10_000 });
  expect(run({})).toMatchObject({ status: 0, signal: null, stdout: "heard\n" });
  expect(run({ ref: false })).toMatchObject({ status: 0, signal: null, stdout: "" });
});

test("what is read and written apart keeps the event loop free, and an error is a number", async () => {
  const { read: r, write: w } = pipe();
  const buffer = new Uint8Array(8);
  const pending = readApart(r, buffer);
  expect(await writeApart(w, new Uint8Array([1, 2, 3]))).toBe(3);
  expect(await pending).toBe(3);
  expect(buffer[2]).toBe(3);
  expect(await writeApart(r, buffer)).toBe(-errno.EBADF);
  close(r);
  close(w);
});

test("releaseExecutable lets go of the executable's pages, and the program runs on", () => {
  const resident = () => Number(/^Rss:\s+(\d+)/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))![1]);
  const before = resident();
  const released = releaseExecutable();
  expect(released).toBeGreaterThan(1 << 20);
  expect(resident()).toBeLessThan(before);
  expect(JSON.stringify(new Array(1000).fill({ still: "here" })).length).toBe(17_001);
});

test("signals have the numbers that node:os knows", () => {
  for (const [name, number] of Object.entries(constants.signals)) expect([name, signalOf(name)]).toEqual([name, number]);
  expect([signalOf("kill"), signalOf("Sigterm"), signalOf("SIGNOPE"), signalOf("")]).toEqual([9, 15, undefined, undefined]);
});
