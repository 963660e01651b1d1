import { expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { MetricsSchema as V1 } from "../../gen/io/containerd/cgroups/v1_pb.ts";
import { MetricsSchema as V2 } from "../../gen/io/containerd/cgroups/v2_pb.ts";
import { networkStats, systemCpuUsage } from "./host.ts";
import { readMetrics } from "./metrics.ts";

const any = (typeUrl: string, value: Uint8Array) => create(AnySchema, { typeUrl, value });

test("cgroup v1 metrics with the kernel's names; no limit is the machine's memory", () => {
  const message = create(V1, {
    memory: {
      cache: 5n,
      pgPgIn: 6n,
      pgMajFault: 7n,
      totalInactiveFile: 8n,
      hierarchicalSwapLimit: 2n ** 63n - 4096n,
      usage: { usage: 100n, limit: 2n ** 63n - 4096n, max: 200n },
    },
    cpu: { usage: { total: 10n, perCpu: [4n, 6n], kernel: 3n, user: 7n } },
    pids: { current: 2n },
  });
  const sample = readMetrics(any("io.containerd.cgroups.v1.Metrics", toBinary(V1, message)), 1000)!;
  expect(sample.memory).toMatchObject({ usage: 100, max_usage: 200, limit: 1000 });
  expect(sample.memory.stats).toMatchObject({
    cache: 5,
    pgpgin: 6,
    pgmajfault: 7,
    total_inactive_file: 8,
    hierarchical_memsw_limit: 2 ** 62,
  });
  expect(sample.cpu).toMatchObject({ total: 10, perCpu: [4, 6], kernel: 3, user: 7 });
  expect(sample.pids).toEqual({ current: 2, limit: 0 });
});

test("cgroup v2 metrics in nanoseconds", () => {
  const message = create(V2, {
    memory: { usage: 50n, usageLimit: 500n, inactiveFile: 3n, pgmajfault: 4n },
    cpu: { usageUsec: 7n },
    io: { usage: [{ major: 8n, minor: 1n, rbytes: 11n, wbytes: 12n }] },
  });
  const sample = readMetrics(any("type.googleapis.com/io.containerd.cgroups.v2.Metrics", toBinary(V2, message)), 1000)!;
  expect(sample.memory).toMatchObject({ usage: 50, limit: 500, stats: { inactive_file: 3, pgmajfault: 4 } });
  expect(sample.cpu.total).toBe(7000);
  expect(sample.blkio.io_service_bytes_recursive).toEqual([
    { major: 8, minor: 1, op: "read", value: 11 },
    { major: 8, minor: 1, op: "write", value: 12 },
  ]);
  expect(readMetrics(any("other", new Uint8Array()), 1)).toBeUndefined();
});

test("the host's side", () => {
  expect(systemCpuUsage("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 …")).toBe(28 * 1e7);
  expect(networkStats(process.pid)!.lo).toBeUndefined();
  expect(networkStats(2 ** 22)).toBeUndefined();
});
