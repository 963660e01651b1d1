// The same docker CLI, the same commands, Debian's dockerd beside jubakod: exit statuses and what scripts read must be equal. Words differ between
// versions of Docker, so texts are compared only where they have been the same for years.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { docker, type Peer, startDockerd, startJubakod } from "../bench/support/peers.ts";
import { lacks } from "./support/engine.ts";

/** Commands in order, for both. `same`: also standard output is equal, with ids and times replaced. `status`: what Docker 28 gives, where 20.10 gave another. */
const script: { args: string[]; same?: boolean; status?: number }[] = [
  { args: ["run", "--rm", "busybox", "echo", "hello"], same: true },
  { args: ["run", "--rm", "busybox", "sh", "-c", "exit 3"] },
  { args: ["run", "--rm", "busybox", "nope"] },
  { args: ["run", "--rm", "busybox", "/etc/passwd"] },
  { args: ["run", "--rm", "busybox", "/nope/nope"] },
  { args: ["run", "--rm", "-w", "/etc/passwd", "busybox", "true"] },
  { args: ["run", "--rm", "-u", "nosuchuser", "busybox", "true"] },
  { args: ["run", "--rm", "-u", "1:nosuchgroup", "busybox", "true"] },
  { args: ["run", "--rm", "-v", "relative/path:/x", "busybox", "true"] },
  { args: ["run", "--rm", "-v", "/tmp:relative", "busybox", "true"] },
  { args: ["run", "--rm", "-v", "/tmp:/x:badmode", "busybox", "true"] },
  { args: ["run", "--rm", "-v", "/tmp:/x", "-v", "/var:/x", "busybox", "true"] },
  { args: ["run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", "true"] },
  { args: ["run", "--rm", "--network", "nosuchnet", "busybox", "true"] },
  { args: ["run", "--rm", "--network", "container:nosuch", "busybox", "true"] },
  { args: ["run", "--rm", "-m", "1m", "busybox", "true"] },
  { args: ["run", "--rm", "--cpus", "1000", "busybox", "true"] },
  { args: ["run", "--rm", "--cap-add", "NOSUCH", "busybox", "true"] },
  { args: ["run", "--rm", "--security-opt", "nosuch=1", "busybox", "true"] },
  { args: ["run", "--rm", "--sysctl", "kernel.nosuch=1", "busybox", "true"] },
  { args: ["run", "--rm", "--device", "/dev/nosuch", "busybox", "true"] },
  { args: ["run", "--rm", "--restart", "always", "busybox", "true"] },
  { args: ["run", "--rm", "--restart", "on-failure:-1", "busybox", "true"] },
  { args: ["run", "--rm", "--tmpfs", "/t:bogus=1", "busybox", "true"] },
  {
    args: ["run", "--rm", "--tmpfs", "/t:rw,size=64k,noexec,uid=5", "busybox", "sh", "-c", "grep ' /t ' /proc/mounts; ls -ldn /t"],
    same: true,
  },
  {
    args: [
      "run",
      "--rm",
      "--mount",
      "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
      "busybox",
      "sh",
      "-c",
      "grep ' /t ' /proc/mounts; ls -ld /t | cut -c1-10",
    ],
    same: true,
  },
  { args: ["run", "--rm", "--isolation", "hyperv", "busybox", "true"] },
  { args: ["run", "--rm", "--link", "nosuch:alias", "busybox", "true"] },
  { args: ["run", "--rm", "--volumes-from", "nosuch", "busybox", "true"] },
  { args: ["run", "--rm", "--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"], same: true },
  { args: ["run", "--rm", "--ulimit", "nofile=300:200", "busybox", "true"] },
  {
    args: ["run", "--rm", "--device", "/dev/null:/dev/mine:r", "busybox", "sh", "-c", "ls -l /dev/mine | cut -c1-10; echo > /dev/mine"],
    same: true,
  },
  { args: ["run", "--rm", "--device", "/dev/null:/dev/mine:xyz", "busybox", "true"] },
  { args: ["run", "--rm", "--group-add", "daemon", "--group-add", "777", "busybox", "id"], same: true },
  { args: ["run", "--rm", "--group-add", "nosuchgroup", "busybox", "id"] },
  { args: ["run", "--rm", "--sysctl", "kernel.msgmax=1000", "busybox", "cat", "/proc/sys/kernel/msgmax"], same: true },
  { args: ["run", "--rm", "--pid", "container:nosuch", "busybox", "true"] },
  { args: ["run", "--rm", "--ipc", "bogus", "busybox", "true"] },
  { args: ["run", "--rm", "--ipc", "none", "busybox", "ls", "/dev/shm"] },
  { args: ["run", "--rm", "--shm-size", "1m", "busybox", "df", "-k", "/dev/shm"], same: true },
  { args: ["run", "--rm", "-m", "64m", "--memory-swap", "32m", "busybox", "true"] },
  { args: ["run", "--rm", "-m", "64m", "--memory-reservation", "128m", "busybox", "true"] },
  { args: ["run", "--rm", "--cpuset-cpus", "77", "busybox", "true"] },
  { args: ["run", "--rm", "--oom-score-adj", "500", "busybox", "cat", "/proc/self/oom_score_adj"], same: true },
  { args: ["run", "--rm", "--dns", "bogus", "busybox", "true"] },
  { args: ["run", "--rm", "--security-opt", "seccomp=/nonexistent", "busybox", "true"] },
  { args: ["run", "--rm", "--runtime", "nosuch", "busybox", "true"] },
  { args: ["run", "--rm", "--pull", "never", "nosuchimage", "true"] },
  { args: ["run", "--rm", "--stop-signal", "NOSUCH", "busybox", "true"] },
  { args: ["run", "--rm", "--health-interval", "1us", "--health-cmd", "x", "busybox", "true"] },
  { args: ["run", "--rm", "--log-opt", "max-size=10x", "busybox", "true"] },
  { args: ["run", "--rm", "--log-opt", "max-file=0", "busybox", "true"] },
  { args: ["run", "--rm", "-p", "20100-20102:80-81", "busybox", "true"] },
  { args: ["run", "--rm", "--log-driver", "nosuch", "busybox", "true"] },
  { args: ["run", "--rm", "--hostname", "a", "--network", "host", "busybox", "true"] },
  { args: ["run", "--rm", "busybox", "sh", "-c", "id; pwd; echo $PATH $HOME; ls /; cat /etc/hostname | wc -c"], same: true },
  { args: ["run", "--rm", "-t", "busybox", "sh", "-c", "echo $TERM; tty"], same: true },
  {
    args: ["run", "--rm", "busybox", "sh", "-c", "ulimit -a; umask; cat /proc/self/status | grep -E '^(Cap|Seccomp:|NoNewPrivs)'"],
    same: true,
  },
  { args: ["run", "--rm", "busybox", "sh", "-c", "ls -l /dev | awk '{print $1,$NF}'"], same: true },
  {
    args: [
      "run",
      "--rm",
      "busybox",
      "sh",
      "-c",
      "awk '{print $2,$3}' /proc/mounts | grep -v '^/ ' | grep -v cgroup | grep -v -e /etc/ -e /proc/ | sort",
    ],
    same: true,
  },
  { args: ["run", "--rm", "--read-only", "busybox", "touch", "/x"] },
  { args: ["run", "--rm", "busybox", "sh", "-c", "ls -la / | awk '{print $1,$3,$4,$9}'"], same: true },
  { args: ["run", "--rm", "busybox", "sh", "-c", "rm /.dockerenv; test ! -e /.dockerenv"] },
  { args: ["run", "--rm", "--tmpfs", "/", "busybox", "true"] },
  { args: ["run", "--rm", "--security-opt", "systempaths=bogus", "busybox", "true"] },
  { args: ["run", "--rm", "--device-read-bps", "/dev/nosuch:1mb", "busybox", "true"] },
  { args: ["run", "--rm", "--mount", "type=bind,src=/tmp,dst=/x,bind-propagation=rshared", "busybox", "true"] },
  { args: ["run", "--rm", "--mount", "type=bind,src=/tmp,dst=/x,bind-propagation=bogus", "busybox", "true"] },
  { args: ["run", "--rm", "--memory-swappiness", "500", "busybox", "true"] },
  { args: ["run", "--rm", "--cpus", "1", "--cpu-quota", "25000", "busybox", "true"] },
  { args: ["run", "--rm", "--pids-limit", "3", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do sleep 1 & done; wait"] },
  { args: ["run", "--rm", "--cgroupns", "private", "busybox", "sh", "-c", "cut -d: -f3 /proc/self/cgroup | sort -u"] },
  {
    args: [
      "run",
      "--rm",
      "--domainname",
      "example.org",
      "--hostname",
      "h",
      "busybox",
      "sh",
      "-c",
      "hostname; tail -1 /etc/hosts | cut -f2",
    ],
    same: true,
  },
  { args: ["run", "--rm", "--entrypoint", "", "busybox"] },
  { args: ["run", "--rm", "-u", ":6", "busybox", "id"], same: true },
  { args: ["run", "--rm", "-w", "/new/dir", "busybox", "pwd"], same: true },
  { args: ["run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "busybox", "grep", "CapEff", "/proc/self/status"], same: true },
  { args: ["run", "--rm", "-v", "fresh:/x:ro", "busybox", "touch", "/x/y"] },
  { args: ["run", "--rm", "-a", "stderr", "busybox", "sh", "-c", "echo o; echo e >&2"], same: true },
  { args: ["run", "--rm", "--sysctl", "net.ipv4.ip_forward=0", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward"], same: true },
  { args: ["run", "--rm", "--device-cgroup-rule", "bogus", "busybox", "true"] },
  { args: ["run", "--rm", "--gpus", "all", "busybox", "true"] },
  { args: ["run", "--rm", "busybox", "sh", "-c", "kill -9 $$"] },
  { args: ["run", "--rm", "busybox", "cat", "/proc/1/oom_score_adj", "/proc/sys/net/ipv4/ping_group_range"], same: true },
  { args: ["run", "-d", "--name", "one", "-p", "0:80", "busybox", "sleep", "1000"] },
  { args: ["run", "-d", "--name", "one", "busybox", "sleep", "1000"] },
  { args: ["ps", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.State}}"], same: true },
  {
    args: [
      "inspect",
      "-f",
      "{{.State.Status}} {{.Path}} {{.Args}} {{.Config.Cmd}} {{.HostConfig.NetworkMode}} {{.RestartCount}} {{.Driver}}",
      "one",
    ],
  },
  { args: ["inspect", "-f", "{{json .Config}}", "one"], same: true },
  { args: ["exec", "one", "echo", "in"], same: true },
  { args: ["exec", "one", "nope"], status: 127 },
  { args: ["exec", "-u", "nosuch", "one", "true"] },
  { args: ["exec", "-w", "/nosuchdir", "one", "true"], status: 127 },
  { args: ["exec", "nosuch", "true"] },
  { args: ["top", "one", "-o", "pid,comm"] },
  { args: ["top", "one", "-nonsense"] },
  { args: ["logs", "nosuch"] },
  { args: ["rm", "one"] },
  { args: ["pause", "one"] },
  { args: ["pause", "one"] },
  { args: ["exec", "one", "true"] },
  { args: ["unpause", "one"] },
  { args: ["unpause", "one"] },
  { args: ["kill", "-s", "NOSUCH", "one"] },
  { args: ["stop", "-t", "0", "one"], same: true },
  { args: ["stop", "one"], same: true },
  { args: ["kill", "one"] },
  { args: ["attach", "one"] },
  { args: ["start", "one"], same: true },
  { args: ["rename", "one", "two"] },
  { args: ["rename", "two", "two"] },
  { args: ["rename", "two", "bad/name"] },
  { args: ["cp", "two:/etc/passwd", "/dev/null"] },
  { args: ["cp", "two:/nosuch", "/tmp/jubako-none"] },
  { args: ["rm", "-f", "two", "nosuch"] },
  { args: ["wait", "nosuch"] },
  { args: ["update", "--memory", "64m", "nosuch"] },
  { args: ["images", "--format", "{{.Repository}}:{{.Tag}}"], same: true },
  { args: ["tag", "busybox", "x:y"] },
  { args: ["tag", "nosuch", "x:y"] },
  { args: ["tag", "busybox", "BAD:tag"] },
  { args: ["rmi", "x:y"], same: true },
  { args: ["rmi", "nosuch"] },
  { args: ["history", "nosuch"] },
  { args: ["volume", "create", "v1"], same: true },
  { args: ["volume", "create", "bad/name"] },
  { args: ["volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Scope}}", "v1"], same: true },
  { args: ["volume", "rm", "nosuch"] },
  { args: ["volume", "rm", "v1"], same: true },
  { args: ["network", "create", "--subnet", "10.219.77.0/24", "n1"] },
  { args: ["network", "create", "--subnet", "10.219.77.0/24", "n2"] },
  { args: ["network", "create", "n1"] },
  { args: ["network", "create", "--subnet", "banana", "n3"] },
  {
    args: ["network", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{(index .IPAM.Config 0).Subnet}}", "n1"],
    same: true,
  },
  { args: ["run", "--rm", "--network", "n1", "--ip", "10.219.77.50", "busybox", "hostname", "-i"], same: true },
  { args: ["run", "--rm", "--network", "n1", "--ip", "10.1.1.1", "busybox", "true"] },
  { args: ["run", "--rm", "--ip", "10.219.77.50", "busybox", "true"] },
  { args: ["network", "connect", "n1", "nosuch"] },
  { args: ["run", "-d", "--name", "alone", "--network", "none", "--stop-signal", "KILL", "busybox", "sleep", "1000"] },
  { args: ["network", "connect", "n1", "alone"] },
  { args: ["rm", "-f", "alone"] },
  { args: ["run", "-d", "--name", "plugged", "busybox", "sleep", "1000"] },
  { args: ["network", "connect", "bridge", "plugged"] },
  { args: ["network", "connect", "host", "plugged"] },
  { args: ["network", "connect", "none", "plugged"] },
  { args: ["network", "disconnect", "bridge", "plugged"] },
  { args: ["exec", "plugged", "ip", "-o", "addr", "show", "eth0"] },
  { args: ["network", "connect", "bridge", "plugged"] },
  { args: ["run", "--rm", "--network", "container:plugged", "-p", "80:80", "busybox", "true"] },
  { args: ["run", "--rm", "--network", "container:plugged", "--hostname", "x", "busybox", "true"] },
  { args: ["run", "--rm", "--network", "container:plugged", "--dns", "1.1.1.1", "busybox", "true"] },
  { args: ["rm", "-f", "plugged"] },
  { args: ["network", "rm", "nosuch"] },
  { args: ["network", "rm", "bridge"] },
  { args: ["network", "rm", "n1"], same: true },
  { args: ["container", "prune", "-f"] },
];

function normal(text: string): string {
  return text.replace(/\b[0-9a-f]{12,64}\b/g, "ID").replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "TIME");
}

describe.skipIf(lacks("docker", "dockerd", "containerd", "runc", "iptables"))("beside dockerd", () => {
  let theirs: Peer | undefined;
  let ours: Peer | undefined;
  beforeAll(async () => {
    theirs = await startDockerd();
    ours = await startJubakod();
  }, 60_000);
  afterAll(async () => {
    await ours?.stop();
    await theirs?.stop();
  }, 60_000);

  for (const [number, step] of script.entries()) {
    test(`${number + 1}: docker ${step.args.join(" ")}`, () => {
      const expected = docker(theirs!, ...step.args);
      const got = docker(ours!, ...step.args);
      const said = `dockerd: ${expected.stderr.trim()}\njubakod: ${got.stderr.trim()}`;
      const status = step.status ?? expected.status;
      expect({ status: got.status, said: got.status === status ? "" : said }).toEqual({ status, said: "" });
      expect(said).not.toContain("Cannot connect to the Docker daemon");
      if (step.same) expect(normal(got.stdout)).toBe(normal(expected.stdout));
    }, 30_000);
  }
});
