// Our runtime beside runc under Debian's dockerd: the same commands by each, and what they print and end with compared, word by word.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PlainDockerd, startPlainDockerd } from "./support/dockerd.ts";
import { bin, lacks, sh } from "./support/engine.ts";

setDefaultTimeout(60_000);

const status = `sh -c 'grep -E "^(Cap|NoNewPrivs|Seccomp:|Groups|Umask|Cpus_allowed_list)" /proc/self/status'`;
const v1 =
  "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares cpuset/cpuset.cpus pids/pids.max";

/** $RUN begins a container that is removed at its end, $R names the runtime, $D a directory. */
const cases: Record<string, string> = {
  "what a process is": `$RUN busybox ${status}`,
  "capabilities, no new privileges": `$RUN --cap-drop ALL --cap-add NET_ADMIN --security-opt no-new-privileges busybox ${status}`,
  "seccomp unconfined": `$RUN --security-opt seccomp=unconfined busybox ${status}`,
  "a seccomp profile in a file": "$RUN --security-opt seccomp=$D/profile.json busybox sh -c 'mkdir /x 2>&1; chmod 700 /tmp 2>&1'",
  "user and groups": "$RUN -u 1000:1000 --group-add 50 --group-add 60 busybox sh -c 'id; touch /x 2>&1; pwd; echo $HOME'",
  "a user by name, a directory that is made": "$RUN -u nobody -w /new/dir busybox sh -c 'pwd; stat -c %U:%a .'",
  limits: `$RUN -m 32m --memory-swap 64m --cpus 0.5 --cpu-shares 300 --cpuset-cpus 0 --pids-limit 30 busybox sh -c '${v1}'`,
  ulimits: "$RUN --ulimit nofile=100:200 --ulimit core=0 busybox sh -c 'ulimit -n; ulimit -Hn; ulimit -c'",
  "oom score, sysctl":
    "$RUN --oom-score-adj 300 --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=1000 busybox cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
  "a cgroup parent": "$RUN --cgroup-parent /jubako-beside busybox cat /proc/self/cgroup",
  "a device": "$RUN --device /dev/null:/dev/xnull:rw busybox sh -c 'ls -l /dev/xnull | cut -c1-30; echo hi >/dev/xnull'",
  "a device's rule":
    "$RUN --device-cgroup-rule 'c 10:200 rwm' busybox sh -c 'mknod /t c 10 200; (: </t) 2>&1 | sed s/.*://; mknod /u c 10 201 2>&1'",
  "read-only, tmpfs":
    "$RUN --read-only --tmpfs /run:rw,size=1m busybox sh -c 'touch /x 2>&1; touch /run/x && grep \" /run \" /proc/mounts'",
  "a tmpfs on a directory": "$RUN --tmpfs /tmp busybox sh -c 'stat -c %a /tmp; grep \" /tmp \" /proc/mounts'",
  "a tmpfs with a mode": "$RUN --mount type=tmpfs,dst=/t,tmpfs-mode=700,tmpfs-size=100000 busybox sh -c 'stat -c %a /t; df /t | tail -1'",
  "volumes, read-only":
    '$RUN -v $D/vol:/v:ro -v $D/file:/etc/file busybox sh -c \'touch /v/x 2>&1; grep " /v " /proc/mounts | cut -d" " -f2-4; cat /etc/file\'',
  "volumes, slave": '$RUN -v $D/vol:/v:rslave busybox sh -c \'grep " /v " /proc/self/mountinfo | cut -d" " -f5-7 | sed s/:[0-9]*//\'',
  "an init": '$RUN --init busybox sh -c \'tr "\\0" " " </proc/1/cmdline; echo $PPID\'',
  "the host's pids, ipc and name": "$RUN --pid host --ipc host --uts host busybox sh -c 'hostname; test $$ -gt 10 && echo host'",
  "shared memory": "$RUN --ipc private --shm-size 10m busybox sh -c 'df /dev/shm | tail -1'",
  names: "$RUN --hostname box --domainname dom busybox sh -c 'hostname; cat /proc/sys/kernel/domainname'",
  unmasked: "$RUN --security-opt systempaths=unconfined busybox sh -c 'grep -c \"^proc \" /proc/mounts'",
  statuses:
    "$RUN busybox sh -c 'exit 7'; echo $?; $RUN busybox sh -c 'kill -9 $$'; echo $?; $RUN busybox nope; echo $?; $RUN busybox /nope; echo $?; $RUN -w /etc/passwd busybox true; echo $?",
  refused: "$RUN --sysctl kernel.panic=1 busybox true; echo $?; $RUN --sysctl nope.nope=1 busybox true; echo $?",
  restarts:
    "docker run -d --net none --runtime $R --name $N --restart on-failure:1 busybox sh -c 'echo up; exit 3' >/dev/null; sleep 2; docker inspect -f '{{.RestartCount}} {{.State.ExitCode}} {{.State.Status}}' $N; docker logs $N",
  "a health check":
    "docker run -d --net none --runtime $R --name $N --health-cmd 'test -e /ok' --health-interval 1s --health-retries 1 busybox sh -c 'sleep 2; touch /ok; sleep 100' >/dev/null; sleep 1.6; docker inspect -f '{{.State.Health.Status}}' $N; sleep 2.5; docker inspect -f '{{.State.Health.Status}}' $N",
  "pause, update, top, stop, start, kill": `docker run -d --net none --runtime $R --name $N -m 64m busybox sh -c 'trap "echo got; exit 7" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null; sleep 0.5
    docker pause $N; docker exec $N true; docker inspect -f '{{.State.Status}}' $N; docker unpause $N; docker update -m 96m --memory-swap 96m --cpus 0.3 --pids-limit 44 $N
    docker exec $N sh -c '${v1}'; docker top $N -o args | head -2; docker stop $N; docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' $N; docker logs $N
    docker start $N; docker kill -s USR1 $N; sleep 0.5; docker inspect -f '{{.State.ExitCode}} {{.State.Status}}' $N`,
  exec: `docker run -d --net none --runtime $R --name $N busybox sleep 1000 >/dev/null; docker exec -e X=y -w /tmp -u 5:6 $N sh -c 'echo $X; pwd; id -u; id -g'; docker exec $N sh -c 'exit 9'; echo $?; docker exec $N nope; echo $?
    echo in | docker exec -i $N cat; script -qec "docker exec -it $N sh -c 'tty; exit 3'" /dev/null; echo $?; $RUN --pid container:$N busybox sh -c 'ps -o args | head -2'; docker run --rm --runtime $R --net container:$N busybox ls /sys/class/net
    docker cp $D/file $N:/file; docker exec $N cat /file; docker diff $N | grep file; docker rename $N $N-2; docker kill $N-2; docker rename $N-2 $N`,
  "out of memory":
    "docker run --net none --runtime $R --name $N -m 16m --memory-swap 16m busybox tail /dev/zero; docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' $N",
};

/** What becomes of the end of script's input, where the terminal is asked for it at the wrong moment. */
const NUL = /\^@|\0/g;

describe.skipIf(lacks("docker", "dockerd", "containerd", "runc", "script"))("our runtime beside runc under dockerd", () => {
  let daemon: PlainDockerd;
  const dir = mkdtempSync(join(tmpdir(), "jubako-beside-"));

  beforeAll(async () => {
    mkdirSync(`${dir}/vol`);
    writeFileSync(`${dir}/file`, "content\n");
    const syscalls = [
      { names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" },
      { names: ["chmod", "fchmodat"], action: "SCMP_ACT_ERRNO", errnoRet: 38 },
    ];
    writeFileSync(`${dir}/profile.json`, JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls }));
    daemon = await startPlainDockerd("--add-runtime", `ours=${bin("jubako-runtime")}`);
  }, 60_000);
  afterAll(async () => {
    if (daemon) {
      sh(`docker -H ${daemon.host} rm -f of-runc of-ours of-runc-2 of-ours-2`);
      await daemon.stop();
    }
    sh("find /sys/fs/cgroup -maxdepth 2 -name jubako-beside -exec rmdir {} +");
    rmSync(dir, { recursive: true, force: true });
  }, 60_000);

  const by = async (runtime: string, command: string): Promise<string> => {
    const run = `docker run --rm --net none --runtime ${runtime}`;
    const name = `of-${runtime}`;
    const words = command.replaceAll("$RUN", run).replaceAll("$R ", `${runtime} `).replaceAll("$D", dir).replaceAll("$N", name);
    const script = `{ ${words}\n} 2>&1 </dev/null; echo "ends with $?"; docker rm -f ${name} >/dev/null 2>&1`;
    const shell = Bun.spawn(["sh", "-c", script], { env: { ...process.env, DOCKER_HOST: daemon.host }, stdin: "ignore" });
    return (await new Response(shell.stdout).text())
      .replace(/[0-9a-f]{64}/g, "ID")
      .replaceAll(name, "NAME")
      .replace(NUL, "");
  };

  // Both at once, as most of the time is the daemon's.
  for (const [name, command] of Object.entries(cases))
    test(name, async () => {
      const [runc, ours] = await Promise.all([by("runc", command), by("ours", command)]);
      expect(ours).toBe(runc);
    });
});
