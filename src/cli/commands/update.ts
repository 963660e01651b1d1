import { atLeast, command } from "../command.ts";
import { parseRestart } from "../container/values.ts";
import { eachInTurn } from "../each.ts";
import { bytes, cpus, hidden, int, string, uint } from "../flags.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Update configuration of one or more containers",
  args: atLeast(1),
  flags: {
    "blkio-weight": uint("", "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)", 16),
    "cpu-period": int("", "Limit CPU CFS (Completely Fair Scheduler) period"),
    "cpu-quota": int("", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    "cpu-rt-period": int("", "Limit the CPU real-time period in microseconds"),
    "cpu-rt-runtime": int("", "Limit the CPU real-time runtime in microseconds"),
    "cpu-shares": int("c", "CPU shares (relative weight)"),
    cpus: cpus("", "Number of CPUs"),
    "cpuset-cpus": string("", "CPUs in which to allow execution (0-3, 0,1)"),
    "cpuset-mems": string("", "MEMs in which to allow execution (0-3, 0,1)"),
    "kernel-memory": hidden(bytes("", "Kernel memory limit (deprecated)")),
    memory: bytes("m", "Memory limit"),
    "memory-reservation": bytes("", "Memory soft limit"),
    "memory-swap": bytes("", "Swap limit equal to memory plus swap: -1 to enable unlimited swap", true),
    "pids-limit": int("", "Tune container pids limit (set -1 for unlimited)"),
    restart: string("", "Restart policy to apply when a container exits"),
  },
  async run(cli, flags, args) {
    if (cli.changed.size === 0) throw new Error("you must provide one or more flags when using this command");
    const restart = flags.restart === "" ? undefined : parseRestart(flags.restart);
    const client = await cli.client();
    const warnings: string[] = [];
    const body = {
      BlkioWeight: flags["blkio-weight"],
      CpusetCpus: flags["cpuset-cpus"],
      CpusetMems: flags["cpuset-mems"],
      CpuShares: flags["cpu-shares"],
      Memory: flags.memory,
      MemoryReservation: flags["memory-reservation"],
      MemorySwap: flags["memory-swap"],
      CpuPeriod: flags["cpu-period"],
      CpuQuota: flags["cpu-quota"],
      CpuRealtimePeriod: flags["cpu-rt-period"],
      CpuRealtimeRuntime: flags["cpu-rt-runtime"],
      NanoCpus: flags.cpus,
      ...(cli.changed.has("pids-limit") ? { PidsLimit: flags["pids-limit"] } : {}),
      ...(restart ? { RestartPolicy: restart } : {}),
    };
    try {
      return await eachInTurn(cli, args, async (name) => {
        const answer = await client.containers.update(name, body);
        warnings.push(...(answer.Warnings ?? []));
      });
    } finally {
      if (warnings.length > 0) cli.out(`${warnings.join("\n")}\n`);
    }
  },
});
