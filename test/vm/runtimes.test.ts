// Other OCI runtimes under our shim, where crun can work: on cgroup v2, in a machine of its own. The engine is asked for each runtime by name. One boot,
// one script; the tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, sh, which } from "../support/engine.ts";
import { BOOT_MS, boot, libraries, machineLacks, type Outcome, readers } from "./boot.ts";

const runtimes = ["crun", "runc"].filter((name) => which(name));
if (runtimes.length === 0) console.log("skip: crun, runc not installed");

describe.skipIf(runtimes.length === 0 || machineLacks())("other runtimes under our shim on cgroup v2", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    const dir = mkdtempSync(join(tmpdir(), "jubako-vm-image-"));
    try {
      const archive = join(dir, "busybox.tar");
      const made = sh(`${process.execPath} ${root}scripts/seed-busybox.ts >${archive}`);
      if (made.status !== 0) throw new Error(made.stderr);
      const programs = runtimes.flatMap((name) => {
        const path = which(name)!;
        return [[`usr/bin/${name}`, { from: path }] as const, ...Object.entries(libraries(path))];
      });
      outcome = await boot({ files: { "busybox.tar": { from: archive }, ...Object.fromEntries(programs) }, script: script(runtimes) });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  for (const runtime of runtimes)
    describe(runtime, () => {
      test("run: output, input, exit status, a program that is missing, a terminal", () => {
        // The client reads the status from the sentence, in which crun's "No such file" has a capital letter.
        const missing = runtime === "crun" ? "125" : "127";
        expect(fields(`${runtime} run`)).toEqual({ out: "hello", in: "through", status: "5", missing, terminal: "/dev/pts/0" });
      });

      test("limits, exec, logs, stats, pause, update", () => {
        expect(fields(`${runtime} life`)).toEqual({
          "memory.max": String(64 << 20),
          "pids.max": "50",
          exec: "inside",
          "exec status": "3",
          log: "said",
          paused: "paused 1",
          resumed: "running 0",
          updated: "30",
        });
        const { MemUsage, PIDs } = JSON.parse(said(`${runtime} stats`));
        expect(MemUsage).toMatch(/^[\d.]+[KM]iB \/ 64MiB$/);
        expect(PIDs).toBe("1");
      });

      test("out of memory is told", () => {
        expect(said(`${runtime} oom`)).toBe("137 true");
      });
    });

  test("stop, rm: nothing is left", () => {
    expect(said("left")).toBe("");
  });
});

const script = (runtimes: string[]) => `
set -u
ln -s /run /var/run; mkdir -p /var/lib/jubako /etc; echo 127.0.0.1 localhost >/etc/hosts; : >/etc/resolv.conf
export DOCKER_HOST=unix:///run/vm.sock
jubakod --data-root /var/lib/jubako --exec-root /run/engine --pidfile /run/engine.pid -H $DOCKER_HOST ${runtimes.map((name) => `--add-runtime ${name}=/usr/bin/${name}`).join(" ")} >/run/log 2>&1 &
engine=$!
for i in $(seq 300); do jubako version >/dev/null 2>&1 && break; sleep 0.2; done
jubako load -q -i /busybox.tar >/dev/null || { cat /run/log; exit 1; }
cli() { jubako "$@"; }
for name in ${runtimes.join(" ")}; do
  run() { jubako run --network none --runtime $name "$@"; }
  echo "== $name run"
  echo "out=$(run --rm busybox echo hello)"
  echo "in=$(echo through | run --rm -i busybox cat)"
  run --rm busybox sh -c 'exit 5'; echo "status=$?"
  run --rm busybox nope 2>/dev/null; echo "missing=$?"
  echo "terminal=$(run --rm -t busybox tty | tr -d '\\r')"
  id=$(run -d --name $name -m 64m --pids-limit 50 busybox sh -c 'echo said; exec sleep 1000')
  G=$(dirname $(find /sys/fs/cgroup -path "*$id*" -name pids.max | head -n 1))
  show() { for f in "$@"; do echo "$f=$(cat $G/$f)"; done; }
  echo "== $name life"
  show memory.max pids.max
  echo "exec=$(cli exec $name echo inside)"
  cli exec $name sh -c 'exit 3'; echo "exec status=$?"
  echo "log=$(cli logs $name)"
  cli pause $name >/dev/null; echo "paused=$(cli inspect -f '{{.State.Status}}' $name) $(cat $G/cgroup.freeze)"
  cli unpause $name >/dev/null; echo "resumed=$(cli inspect -f '{{.State.Status}}' $name) $(cat $G/cgroup.freeze)"
  cli update --pids-limit 30 $name >/dev/null; echo "updated=$(cat $G/pids.max)"
  echo "== $name stats"; cli stats --no-stream --format '{{json .}}' $name
  echo "== $name oom"; run --name oom-$name -m 16m --memory-swap 16m busybox tail /dev/zero >/dev/null 2>&1
  cli inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' oom-$name
  cli stop -t 1 $name >/dev/null
  cli rm -f $name oom-$name >/dev/null
done
kill $engine; wait $engine
echo "== left"; pidof sleep jubakod crun runc; grep overlay /proc/mounts; ls /run/containerd/runc/moby 2>/dev/null
echo "== log"; cat /run/log
exit 0
`;
