// Our runtime and our shim under the originals' daemons: Debian's dockerd, containerd with its own shim, podman as root and as an ordinary user.
// Everything that they make lies in directories of the test's; no bridges, no firewall rules.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon, endNaming, processesNaming, removeMounted } from "./support/daemon.ts";
import { bin, busyboxTar, lacks, type Output, run, sh, until, which } from "./support/engine.ts";
import { freePort } from "./support/registry.ts";

setDefaultTimeout(120_000);
const runtime = bin("jubako-runtime");
/** Some machines let not even root raise limits, which podman asks for by itself. */
const podmanConfig = '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=4096:4096"]\n';
const memoryLimit = existsSync("/sys/fs/cgroup/cgroup.controllers")
  ? "/sys/fs/cgroup/memory.max"
  : "/sys/fs/cgroup/memory/memory.limit_in_bytes";
const pidsLimit = existsSync("/sys/fs/cgroup/cgroup.controllers") ? "/sys/fs/cgroup/pids.max" : "/sys/fs/cgroup/pids/pids.max";

async function end(child: ChildProcess, dir: string): Promise<void> {
  await endDaemon(child);
  clean(dir);
}

function clean(dir: string): void {
  endNaming(dir);
  removeMounted(dir);
}

/** Directories where controllers would be that are not mounted: conmon makes them, and files in them, in what is then an ordinary file system. */
function unmounted(): string[] {
  const roots = sh("ls -d /sys/fs/cgroup/*/")
    .stdout.split("\n")
    .filter((root) => root && sh(`mountpoint -q ${root}`).status !== 0);
  return roots.length
    ? sh(`find ${roots.join(" ")} -maxdepth 2 -type d`)
        .stdout.split("\n")
        .filter(Boolean)
    : [];
}

/** What a caller of docker's commands sees, whose daemon or runtime it may be. `run`: the words that begin a container. */
function commands(cli: (args: string) => Output, run: string): void {
  const ok = (args: string): string => {
    const { status, stdout, stderr } = cli(args);
    if (status !== 0) throw new Error(`${args}: ${status}: ${stderr}`);
    return stdout;
  };

  test("run: output, input, exit statuses, a program that is missing", () => {
    expect(ok(`${run} --rm busybox echo hello`)).toBe("hello\n");
    expect(sh(`echo through | ${cliWords(cli, `${run} -i --rm busybox cat`)}`).stdout).toBe("through\n");
    expect(cli(`${run} --rm busybox sh -c 'exit 5'`).status).toBe(5);
    expect(cli(`${run} --rm busybox nope`).status).toBe(127);
  });

  test("limits, logs, exec, top, stats", () => {
    ok(`${run} -d --name life -m 64m --pids-limit 50 busybox sh -c 'echo said; exec sleep 1000'`);
    expect(ok(`exec life cat ${memoryLimit} ${pidsLimit}`)).toBe(`${64 << 20}\n50\n`);
    expect(ok("exec -u 1000:1000 -w /tmp -e WORD=said life sh -c 'id -u; pwd; echo $WORD'")).toBe("1000\n/tmp\nsaid\n");
    expect(cli("exec life sh -c 'exit 3'").status).toBe(3);
    expect(ok("logs life")).toBe("said\n");
    expect(ok("top life")).toContain("sleep 1000");
    expect(ok("stats --no-stream life")).toMatch(/6[47](\.11)?Mi?B/);
  });

  test("terminals", () => {
    expect(sh(`script -qec "${cliWords(cli, "exec -it life tty")}" /dev/null`).stdout).toContain("/dev/pts/0");
    const ran = sh(`script -qec "${cliWords(cli, `${run} --rm -it busybox sh -c 'tty; sleep 0.3; exit 4'`)}" /dev/null`);
    expect(ran).toMatchObject({ status: 4, stdout: expect.stringContaining("/dev/pts/0") });
  });

  test("pause, unpause, stop, start, kill", async () => {
    ok("pause life");
    expect(ok("inspect -f '{{.State.Status}}' life")).toBe("paused\n");
    ok("unpause life");
    ok("stop -t 1 life");
    expect(ok("inspect -f '{{.State.ExitCode}} {{.State.Running}}' life")).toBe("137 false\n");
    ok("start life");
    ok("kill life");
    await until("it ended", () => ok("inspect -f '{{.State.Running}}' life") === "false\n");
    ok("rm -f life");
  });

  test("out of memory, read-only root, volumes, a tmpfs, devices, capabilities and the seccomp filter", () => {
    expect(cli(`${run} --rm -m 16m --memory-swap 16m busybox tail /dev/zero`).status).toBe(137);
    const written = ok(`${run} --rm --read-only --tmpfs /t busybox sh -c 'touch /t/a && echo t; touch /b 2>/dev/null || echo ro'`);
    expect(written).toBe("t\nro\n");
    const status = ok(
      `${run} --rm --cap-drop ALL --cap-add CHOWN --security-opt no-new-privileges busybox grep -E 'NoNew|CapEff|Seccomp:' /proc/self/status`,
    );
    expect(status).toMatch(/^CapEff:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t2\n$/);
    expect(Number(ok(`${run} --rm --privileged busybox sh -c 'ls /dev | wc -l'`))).toBeGreaterThan(20);
  });

  test("nothing is left", () => {
    expect(ok("ps -aq")).toBe("");
  });
}

/** The words of a command as a shell takes them. */
function cliWords(cli: ((args: string) => Output) & { words?: string }, args: string): string {
  return `${cli.words} ${args}`;
}

function withWords(words: string): (args: string) => Output {
  return Object.assign((args: string) => sh(`${words} ${args}`), { words });
}

describe.skipIf(lacks("dockerd", "docker", "script"))("our runtime under dockerd", () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-originals-"));
  const host = `unix://${dir}/docker.sock`;
  const cli = withWords(`docker -H ${host}`);
  let daemon: ChildProcess;

  beforeAll(async () => {
    const log = openSync(join(dir, "log"), "a");
    const places = ["--data-root", `${dir}/root`, "--exec-root", `${dir}/exec`, "--pidfile", `${dir}/pid`, "-H", host];
    const network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"];
    daemon = spawn("dockerd", [...places, ...network, "--add-runtime", `jubako=${runtime}`], { stdio: ["ignore", log, log] });
    await until("dockerd answers", () => cli("version").status === 0, 30_000);
    writeFileSync(`${dir}/busybox.tar`, busyboxTar());
    const loaded = cli(`load -i ${dir}/busybox.tar`);
    if (loaded.status !== 0) throw new Error(loaded.stderr);
  }, 60_000);
  afterAll(() => end(daemon, dir), 60_000);

  commands(cli, "run --runtime jubako --network none");

  test("update, cp, init, a health check", async () => {
    cli("run -d --runtime jubako --network none --name other --init --health-cmd true --health-interval 1s busybox sleep 1000");
    expect(cli("update -m 48m --memory-swap 48m other").status).toBe(0);
    expect(cli(`exec other cat ${memoryLimit}`).stdout).toBe(`${48 << 20}\n`);
    expect(cli("cp other:/etc/passwd - | wc -c").stdout.trim()).not.toBe("0");
    await until("it is healthy", () => cli("inspect -f '{{.State.Health.Status}}' other").stdout === "healthy\n", 20_000);
    expect(cli("rm -f other").status).toBe(0);
  });
});

describe.skipIf(lacks("containerd", "ctr", "containerd-shim-runc-v2", "busybox"))("our runtime under containerd's own shim", () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-originals-"));
  const ctr = (args: string) => sh(`ctr -a ${dir}/containerd.sock ${args}`);
  const run = `run --runc-binary ${runtime} --rootfs`;
  let daemon: ChildProcess;

  beforeAll(async () => {
    mkdirSync(`${dir}/rootfs/bin`, { recursive: true });
    copyFileSync(which("busybox")!, `${dir}/rootfs/bin/busybox`);
    chmodSync(`${dir}/rootfs/bin/busybox`, 0o755);
    for (const name of ["sh", "echo", "sleep", "tty", "cat"]) symlinkSync("busybox", `${dir}/rootfs/bin/${name}`);
    writeFileSync(
      `${dir}/config.toml`,
      `version = 2\nroot = "${dir}/root"\nstate = "${dir}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${dir}/containerd.sock"\n[ttrpc]\naddress = "${dir}/ttrpc.sock"\n`,
    );
    const log = openSync(join(dir, "log"), "a");
    daemon = spawn("containerd", ["-c", `${dir}/config.toml`], { stdio: ["ignore", log, log] });
    await until("containerd answers", () => ctr("version").status === 0, 30_000);
  }, 60_000);
  afterAll(() => end(daemon, dir), 60_000);

  test("run, exit status, a program that is missing, a terminal", () => {
    expect(ctr(`${run} --rm ${dir}/rootfs one /bin/echo hello`).stdout).toBe("hello\n");
    expect(ctr(`${run} --rm ${dir}/rootfs two /bin/sh -c 'exit 5'`).status).toBe(5);
    expect(ctr(`${run} --rm ${dir}/rootfs three /bin/nope`).stderr).toContain("/bin/nope");
    const words = `ctr -a ${dir}/containerd.sock ${run} --rm -t ${dir}/rootfs four /bin/tty`;
    expect(sh(`script -qec "${words}" /dev/null`).stdout).toContain("/dev/pts/0");
  });

  test("detached, exec, pause, limits, metrics, kill, delete", async () => {
    expect(ctr(`${run} -d --memory-limit ${64 << 20} ${dir}/rootfs life /bin/sleep 1000`)).toMatchObject({ status: 0, stderr: "" });
    expect(ctr("task exec --exec-id e life /bin/sh -c 'echo inside; exit 3'")).toMatchObject({ status: 3, stdout: "inside\n" });
    expect(ctr("task pause life").status).toBe(0);
    expect(ctr("task ls").stdout).toMatch(/life +\d+ +PAUSED/);
    expect(ctr("task resume life").status).toBe(0);
    expect(ctr("task metrics life").stdout).toContain(String(64 << 20));
    expect(ctr("task ps life").stdout).toMatch(/\d+/);
    ctr("task kill -s KILL life");
    await until("it ended", () => /life +\d+ +STOPPED/.test(ctr("task ls").stdout));
    expect(ctr("task rm life").status).toBe(0);
    expect(ctr("task ls -q").stdout).toBe("");
  });
});

describe.skipIf(lacks("podman", "conmon", "script"))("our runtime under podman", () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-originals-"));
  const places = `--root ${dir}/root --runroot ${dir}/run --tmpdir ${dir}/tmp`;
  // conmon writes a file `oom` where it stands
  const cli = withWords(
    `env -C ${dir} CONTAINERS_CONF=${dir}/containers.conf podman ${places} --cgroup-manager cgroupfs --events-backend file --runtime ${runtime}`,
  );

  const before = new Set(unmounted());

  beforeAll(() => {
    writeFileSync(`${dir}/containers.conf`, podmanConfig);
    writeFileSync(`${dir}/busybox.tar`, busyboxTar());
    const loaded = cli(`load -q -i ${dir}/busybox.tar`);
    if (loaded.status !== 0) throw new Error(loaded.stderr);
  }, 60_000);
  afterAll(() => {
    cli("rm -fa -t 0");
    clean(dir);
    for (const each of unmounted()) if (!before.has(each)) rmSync(each, { recursive: true, force: true });
  }, 60_000);

  commands(cli, "run --network none");

  test("a user namespace", () => {
    const { stdout } = cli("run --rm --network none --uidmap 0:100000:1000 busybox sh -c 'id -u; cat /proc/self/uid_map'");
    expect(stdout.trim().split(/\s+/)).toEqual(["0", "0", "100000", "1000"]);
  });
});

const UID = 54322;

describe.skipIf(lacks("podman", "conmon", "setpriv", "unshare", "newuidmap"))("our runtime under an ordinary user's podman", () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-originals-"));
  const files = ["passwd", "group", "subuid", "subgid"];
  const bind = files.map((file) => `touch /etc/${file} && mount --bind ${dir}/${file} /etc/${file}`).join(" && ");
  // udev would give everyone the device that slirp4netns opens; where it doesn't run, the user's view of /dev has one.
  const withNet = !existsSync("/dev/net");
  const tun = "mkdir -p /dev/net && mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200";
  const env = `PATH=$PATH HOME=${dir}/home XDG_RUNTIME_DIR=${dir}/run CONTAINERS_CONF=${dir}/containers.conf USER=jubako-test`;
  const podman = `podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend file --runtime ${runtime}`;
  const words = (args: string) =>
    `exec unshare -m --propagation private sh -c '${bind} && ${tun} && cd / && exec setpriv --reuid=${UID} --regid=${UID} --clear-groups env -i ${env} ${podman} "$@"' sh ${args}`;
  const user = (args: string) => sh(words(args));

  beforeAll(() => {
    chmodSync(dir, 0o755);
    for (const name of ["home", "run"]) {
      mkdirSync(`${dir}/${name}`, { mode: 0o700 });
      chownSync(`${dir}/${name}`, UID, UID);
    }
    const add = (file: string, line: string) =>
      writeFileSync(`${dir}/${file}`, `${existsSync(`/etc/${file}`) ? readFileSync(`/etc/${file}`, "utf8") : ""}${line}\n`);
    add("passwd", `jubako-test:x:${UID}:${UID}::${dir}/home:/bin/sh`);
    add("group", `jubako-test:x:${UID}:`);
    add("subuid", "jubako-test:500000:65536");
    add("subgid", "jubako-test:500000:65536");
    writeFileSync(`${dir}/containers.conf`, podmanConfig);
    writeFileSync(`${dir}/busybox.tar`, busyboxTar());
    const loaded = user(`load -q -i ${dir}/busybox.tar`);
    if (loaded.status !== 0) throw new Error(loaded.stderr);
  }, 60_000);
  afterAll(() => {
    user("rm -fa -t 0");
    clean(dir);
    if (withNet) rmdirSync("/dev/net");
  }, 60_000);

  test("run, exec, logs, stop: root inside, sub-ids for the others", () => {
    const script = "id -u; touch /x; chown 5:6 /x; stat -c %u:%g /x; exit 4";
    const ran = user(`run --rm --network none busybox sh -c '${script}'`);
    expect(ran).toMatchObject({ status: 4, stdout: "0\n5:6\n" });
    expect(user("run -d --name life --network none busybox sh -c 'echo said; exec sleep 1000'").status).toBe(0);
    expect(user("exec --user 7 life id -u").stdout).toBe("7\n");
    expect(user("logs life").stdout).toBe("said\n");
    expect(user("stop -t 1 life").status).toBe(0);
    expect(user("rm life").status).toBe(0);
  });

  test.skipIf(lacks("slirp4netns"))("a network by slirp4netns: both ways, exec, logs, stop", async () => {
    const from = createServer((_, response) => response.end("outside")).listen(0, "127.0.0.1");
    await once(from, "listening");
    const outside = (from.address() as AddressInfo).port;
    const port = await freePort();
    const helpers = () => processesNaming("slirp4netns").filter((pid) => processesNaming(dir).includes(pid));
    try {
      const script = "mkdir /www; echo inside >/www/index.html; echo ready; exec httpd -f -h /www -p 80";
      const options = `--network slirp4netns:allow_host_loopback=true -p 127.0.0.1:${port}:80`;
      expect(user(`run -d --name net ${options} busybox sh -c '${script}'`)).toMatchObject({ status: 0 });
      await until("its program is ready", () => user("logs net").stdout === "ready\n");
      expect(user("exec net sh -c 'ip -4 -o addr show tap0'").stdout).toContain("10.0.2.100/24");
      expect(helpers()).not.toEqual([]);
      const answer = await until("the port answers", () => fetch(`http://127.0.0.1:${port}/`).catch(() => undefined));
      expect(await answer.text()).toBe("inside\n");
      // slirp4netns gives 127.0.0.1 of the host this address
      const asked = await run(["sh", "-c", words(`exec net wget -qO- http://10.0.2.2:${outside}/`)]);
      expect(asked).toMatchObject({ status: 0, stdout: "outside" });
      expect(user("stop -t 1 net").status).toBe(0);
      await expect(fetch(`http://127.0.0.1:${port}/`)).rejects.toThrow();
      expect(user("rm net").status).toBe(0);
      await until("slirp4netns ends", () => helpers().length === 0);
    } finally {
      from.close();
    }
  });
});
