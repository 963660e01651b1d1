// Changes to a container that exists: its limits, its restart policy, its name.

import { availableParallelism } from "node:os";
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import type { HostConfig } from "../../api/types.ts";
import { conflict, Failure, invalidArgument } from "../../lib/errors.ts";
import { type Entry, locked } from "./book.ts";
import { checkResources, checkRestartPolicy } from "./check.ts";
import { type Core, publish } from "./core.ts";
import { checkName } from "./create.ts";
import { parseHostConfig } from "./settings.ts";
import { resources } from "./spec/resources.ts";

const RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

const UPDATABLE = [
  "BlkioWeight",
  "CpuShares",
  "CpuPeriod",
  "CpuQuota",
  "CpuRealtimePeriod",
  "CpuRealtimeRuntime",
  "CpusetCpus",
  "CpusetMems",
  "Memory",
  "MemoryReservation",
  "MemorySwap",
  "NanoCpus",
  "PidsLimit",
] as const;

export function updateContainer(core: Core, entry: Entry, body: unknown): Promise<string[]> {
  const asked = parseHostConfig(body);
  return locked(entry, async () => {
    const { record } = entry;
    const next: HostConfig = { ...record.hostConfig };
    for (const field of UPDATABLE) {
      const value = asked[field];
      if (value) Object.assign(next, { [field]: value });
    }
    if (asked.NanoCpus) {
      delete next.CpuPeriod;
      delete next.CpuQuota;
    }
    if ((asked.CpuPeriod || asked.CpuQuota) && record.hostConfig.NanoCpus) {
      throw conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
    }
    if (asked.Memory && !asked.MemorySwap && (next.MemorySwap ?? 0) > 0 && asked.Memory > (next.MemorySwap ?? 0)) {
      throw conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time");
    }
    if (asked.RestartPolicy?.Name) {
      if (record.hostConfig.AutoRemove && asked.RestartPolicy.Name !== "no") {
        throw invalidArgument("Restart policy cannot be updated because AutoRemove is enabled for the container");
      }
      next.RestartPolicy = { Name: asked.RestartPolicy.Name, MaximumRetryCount: asked.RestartPolicy.MaximumRetryCount ?? 0 };
      checkRestartPolicy(next);
    }
    checkResources(next, availableParallelism());
    if (record.state.Running && !record.state.Restarting && UPDATABLE.some((field) => asked[field])) {
      await core.engine.manager.tasks.update({
        containerId: record.id,
        resources: create(AnySchema, { typeUrl: RESOURCES_TYPE, value: Buffer.from(JSON.stringify(resources(next))) }),
      });
    }
    record.hostConfig = next;
    core.book.save(entry);
    publish(core, record, "update");
    return [];
  });
}

export function renameContainer(core: Core, entry: Entry, name: string | null): Promise<void> {
  return locked(entry, async () => {
    const { record } = entry;
    if (!name) throw invalidArgument("Neither old nor new names may be empty");
    const next = renamed(() => checkName(name));
    const old = record.name;
    if (next === old) throw invalidArgument("Renaming a container with the same name as its current name");
    renamed(() => core.book.rename(entry, next));
    try {
      await core.engine.networks.renamed(record, old);
    } catch (error) {
      core.book.rename(entry, old);
      throw error;
    }
    core.book.save(entry);
    publish(core, record, "rename", { oldName: `/${old}` });
  });
}

/** Docker's words before what is wrong with a new name. */
function renamed<T>(change: () => T): T {
  try {
    return change();
  } catch (error) {
    if (error instanceof Failure) throw new Failure(error.kind, `Error when allocating new name: ${error.message}`, { cause: error });
    throw error;
  }
}
