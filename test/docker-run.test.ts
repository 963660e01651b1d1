// The real docker CLI's `run` with the flags that people use, against jubakod. One engine for the file.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lacks, sh, startEngine, type TestEngine, until } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("docker run", () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startEngine();
  });
  afterAll(() => engine?.stop());

  /** Standard output of a run that must succeed. */
  const run = (...args: string[]): string => {
    const result = engine.docker("run", "--rm", ...args);
    if (result.status !== 0) throw new Error(`docker run ${args.join(" ")}: ${result.status}\n${result.stderr}`);
    return result.stdout;
  };

  test("passes output and exit status on, streams apart", () => {
    const result = engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42");
    expect(result).toEqual({ status: 42, stdout: "out\n", stderr: "err\n" });
  });

  test("-i pipes standard input in and closes it", () => {
    const result = engine.dockerWith({ input: "a\nb\nc\n" }, "run", "--rm", "-i", "busybox", "wc", "-l");
    expect(result).toMatchObject({ status: 0, stdout: "3\n" });
  });

  test("-i with ten megabytes loses none", () => {
    const input = new Uint8Array(10 << 20).fill(65);
    expect(engine.dockerWith({ input }, "run", "--rm", "-i", "busybox", "wc", "-c").stdout).toBe(`${10 << 20}\n`);
  });

  test("ten megabytes of output arrive", () => {
    expect(run("busybox", "sh", "-c", "head -c 10485760 /dev/zero | tr '\\0' x").length).toBe(10 << 20);
  });

  test("-e, --env-file, -w, -u, --hostname, --entrypoint, --label", () => {
    const file = join(engine.dir, "env");
    writeFileSync(file, "# comment\nFROM_FILE=1\n");
    expect(run("-e", "A=b c", "--env-file", file, "busybox", "sh", "-c", "echo $A $FROM_FILE")).toBe("b c 1\n");
    expect(run("-w", "/new/dir", "busybox", "pwd")).toBe("/new/dir\n");
    expect(run("-u", "1234:5678", "busybox", "id")).toContain("uid=1234 gid=5678");
    expect(run("-u", "nobody", "busybox", "id", "-un")).toBe("nobody\n");
    expect(run("--group-add", "777", "-u", "1000:1000", "busybox", "id", "-G")).toBe("1000 777\n");
    expect(run("--hostname", "boxy", "busybox", "hostname")).toBe("boxy\n");
    expect(run("--entrypoint", "echo", "busybox", "x", "y")).toBe("x y\n");
    expect(run("--domainname", "example.org", "busybox", "cat", "/proc/sys/kernel/domainname")).toBe("example.org\n");
  });

  test("-v and --mount: bind, read-only, volume, tmpfs", () => {
    const dir = join(engine.dir, "bound");
    mkdirSync(dir);
    writeFileSync(join(dir, "f"), "from the host\n");
    expect(run("-v", `${dir}:/mnt`, "busybox", "cat", "/mnt/f")).toBe("from the host\n");
    run("-v", `${dir}:/mnt`, "busybox", "sh", "-c", "echo written > /mnt/g");
    expect(readFileSync(join(dir, "g"), "utf8")).toBe("written\n");
    expect(engine.docker("run", "--rm", "-v", `${dir}:/mnt:ro`, "busybox", "touch", "/mnt/h").stderr).toContain("Read-only file system");
    expect(engine.docker("run", "--rm", "--mount", `type=bind,src=${dir},dst=/mnt,readonly`, "busybox", "touch", "/mnt/h").status).toBe(1);
    run("-v", "jubako-named:/data", "busybox", "sh", "-c", "echo kept > /data/x");
    expect(run("-v", "jubako-named:/data", "busybox", "cat", "/data/x")).toBe("kept\n");
    expect(run("--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c", "df -k /scratch | tail -1")).toContain("1024");
    expect(run("--mount", "type=tmpfs,dst=/t,tmpfs-mode=1770", "busybox", "stat", "-c", "%a", "/t")).toBe("1770\n");
    const missing = engine.docker("run", "--rm", "--mount", "type=bind,src=/no/such/place,dst=/x", "busybox", "true");
    expect(missing.status).toBe(125);
    expect(missing.stderr).toContain("bind source path does not exist: /no/such/place");
  });

  test("-m, --cpus, --pids-limit, --ulimit, --shm-size are set in the kernel", async () => {
    const id = run("-d", "--name", "limits", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "busybox", "sleep", "100").trim();
    const group = sh(`cat /proc/${engine.docker("inspect", "-f", "{{.State.Pid}}", id).stdout.trim()}/cgroup`).stdout;
    const of = (controller: string) =>
      /^\d+:([^:]*):(.*)$/.exec(group.split("\n").find((line) => line.split(":")[1]?.split(",").includes(controller)) ?? "")?.[2];
    expect(readFileSync(`/sys/fs/cgroup/memory${of("memory")}/memory.limit_in_bytes`, "utf8").trim()).toBe(String(64 << 20));
    expect(readFileSync(`/sys/fs/cgroup/pids${of("pids")}/pids.max`, "utf8").trim()).toBe("50");
    const period = Number(readFileSync(`/sys/fs/cgroup/cpu${of("cpu")}/cpu.cfs_period_us`, "utf8"));
    expect(Number(readFileSync(`/sys/fs/cgroup/cpu${of("cpu")}/cpu.cfs_quota_us`, "utf8")) / period).toBe(0.5);
    engine.docker("rm", "-f", id);
    expect(run("--ulimit", "nofile=123:456", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn")).toBe("123\n456\n");
    expect(run("--shm-size", "2m", "busybox", "sh", "-c", "df -k /dev/shm | tail -1")).toContain("2048");
  });

  test("capabilities, seccomp, read-only root, no new privileges", () => {
    const caps = (...args: string[]) =>
      BigInt(`0x${/CapEff:\s*([0-9a-f]+)/.exec(run(...args, "busybox", "cat", "/proc/self/status"))![1]}`);
    expect(caps()).toBe(0xa80425fbn);
    expect(caps("--cap-drop", "ALL")).toBe(0n);
    expect(caps("--cap-drop", "ALL", "--cap-add", "NET_ADMIN")).toBe(1n << 12n);
    expect(caps("--privileged") & (1n << 21n)).toBe(1n << 21n);
    expect(run("busybox", "grep", "Seccomp:", "/proc/self/status")).toContain("2");
    expect(run("--security-opt", "seccomp=unconfined", "busybox", "grep", "Seccomp:", "/proc/self/status")).toContain("0");
    expect(run("--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status")).toContain("1");
    expect(engine.docker("run", "--rm", "--read-only", "busybox", "touch", "/x").stderr).toContain("Read-only file system");
    expect(engine.docker("run", "--rm", "busybox", "mount", "-t", "tmpfs", "none", "/mnt").status).not.toBe(0);
  });

  test("/proc and /sys are masked and read-only as Docker's", () => {
    expect(engine.docker("run", "--rm", "busybox", "sh", "-c", "echo 1 > /proc/sys/kernel/domainname").stderr).toContain("Read-only");
    expect(run("busybox", "sh", "-c", "cat /proc/kcore | wc -c").trim()).toBe("0");
    expect(run("busybox", "sh", "-c", "ls /sys/firmware | wc -l").trim()).toBe("0");
    expect(run("busybox", "sh", "-c", "ls /dev | sort | tr '\\n' ' '")).toMatch(
      /^(core )?fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero $/,
    );
  });

  test("--device, --sysctl, --dns, --add-host, --init, --stop-signal", () => {
    expect(run("--device", "/dev/loop-control:/dev/lc", "busybox", "ls", "/dev/lc")).toBe("/dev/lc\n");
    expect(run("--sysctl", "net.ipv4.ip_forward=1", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward")).toBe("1\n");
    expect(run("--dns", "9.9.9.9", "--dns-search", "example.org", "busybox", "cat", "/etc/resolv.conf")).toContain("nameserver 9.9.9.9");
    expect(run("--add-host", "db:10.1.2.3", "busybox", "cat", "/etc/hosts")).toMatch(/10\.1\.2\.3\s+db/);
    expect(run("--init", "busybox", "sh", "-c", "readlink /proc/1/exe; cat /proc/1/comm")).toMatch(/init/);
    const id = run("-d", "--stop-signal", "USR1", "busybox", "sh", "-c", "trap 'exit 7' USR1; while :; do sleep 0.05; done").trim();
    engine.docker("stop", id);
    expect(engine.docker("wait", id).status).toBe(1);
  });

  test("--pid, --ipc, --uts, --network of the host and of another container", () => {
    expect(run("--pid", "host", "busybox", "readlink", "/proc/self/ns/pid")).toBe(sh("readlink /proc/self/ns/pid").stdout);
    expect(run("--network", "host", "busybox", "readlink", "/proc/self/ns/net")).toBe(sh("readlink /proc/self/ns/net").stdout);
    expect(run("--uts", "host", "busybox", "readlink", "/proc/self/ns/uts")).toBe(sh("readlink /proc/self/ns/uts").stdout);
    engine.docker("run", "-d", "--name", "owner", "--ipc", "shareable", "busybox", "sleep", "100");
    const owner = (ns: string) => engine.docker("exec", "owner", "readlink", `/proc/self/ns/${ns}`).stdout;
    expect(run("--network", "container:owner", "busybox", "readlink", "/proc/self/ns/net")).toBe(owner("net"));
    expect(run("--pid", "container:owner", "busybox", "readlink", "/proc/self/ns/pid")).toBe(owner("pid"));
    expect(run("--ipc", "container:owner", "busybox", "readlink", "/proc/self/ns/ipc")).toBe(owner("ipc"));
    engine.docker("rm", "-f", "owner");
    expect(run("--network", "none", "busybox", "ls", "/sys/class/net")).toBe("lo\n");
  });

  test("--cidfile, --name, --label and --rm leave what they should", () => {
    const cidfile = join(engine.dir, "cid");
    run("--cidfile", cidfile, "--name", "gone", "busybox", "true");
    expect(readFileSync(cidfile, "utf8")).toMatch(/^[0-9a-f]{64}$/);
    expect(engine.docker("ps", "-aq", "--filter", "name=gone").stdout).toBe("");
    const id = engine.docker("run", "-d", "--label", "a=b", "busybox", "true").stdout.trim();
    expect(engine.docker("ps", "-aq", "--no-trunc", "--filter", "label=a=b").stdout.trim()).toBe(id);
    engine.docker("rm", "-f", id);
  });

  test("--restart on-failure counts and gives up", async () => {
    const id = engine.docker("run", "-d", "--restart", "on-failure:2", "busybox", "false").stdout.trim();
    await until(
      "two restarts",
      () => engine.docker("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", id).stdout.trim() === "2 exited",
      15_000,
    );
    engine.docker("rm", "-f", id);
  });

  test("--health-cmd makes it healthy, then unhealthy", async () => {
    const id = run(
      "-d",
      "--health-cmd",
      "test ! -e /sick",
      "--health-interval",
      "200ms",
      "--health-retries",
      "1",
      "busybox",
      "sleep",
      "100",
    ).trim();
    const health = () => engine.docker("inspect", "-f", "{{.State.Health.Status}}", id).stdout.trim();
    await until("healthy", () => health() === "healthy");
    engine.docker("exec", id, "touch", "/sick");
    await until("unhealthy", () => health() === "unhealthy");
    engine.docker("rm", "-f", id);
  });

  test("what cannot run gives Docker's exit codes and leaves nothing", () => {
    const absent = engine.docker("run", "--rm", "busybox", "no-such-command");
    expect(absent.status).toBe(127);
    expect(absent.stderr).toContain("no-such-command");
    expect(absent.stderr).toContain("executable file not found in $PATH");
    expect(engine.docker("run", "--rm", "busybox", "/etc/passwd").status).toBe(126);
    expect(engine.docker("run", "--rm", "busybox", "/etc").status).toBe(126);
    expect(engine.docker("run", "--rm", "no-such-image:x", "true").status).toBe(125);
    expect(engine.docker("run", "--rm", "--name", "bad name", "busybox", "true").status).toBe(125);
    expect(engine.docker("run", "--rm", "-u", "nosuchuser", "busybox", "true").stderr).toContain("nosuchuser");
    expect(engine.docker("ps", "-aq").stdout).toBe("");
  });

  test("a process out of memory ends with 137 and OOMKilled", () => {
    const result = engine.docker(
      "run",
      "--name",
      "hungry",
      "-m",
      "16m",
      "--memory-swap",
      "16m",
      "busybox",
      "sh",
      "-c",
      "x=a; while :; do x=$x$x; done",
    );
    expect(result.status).toBe(137);
    expect(engine.docker("inspect", "-f", "{{.State.OOMKilled}}", "hungry").stdout.trim()).toBe("true");
    engine.docker("rm", "hungry");
  });

  test("a taken name answers 409 with the id that has it", () => {
    const id = engine.docker("create", "--name", "twice", "busybox").stdout.trim();
    const second = engine.docker("create", "--name", "twice", "busybox");
    expect(second.status).toBe(1);
    expect(second.stderr).toContain(`Conflict. The container name "/twice" is already in use by container "${id}"`);
    engine.docker("rm", "twice");
  });
});
