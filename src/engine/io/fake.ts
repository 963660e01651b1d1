// An engine with nothing in it but what the io, logs, attach and events tests need. Used by tests only.
import type { ContainerRecord, Engine } from "../context.ts";
import { createEvents } from "../events/index.ts";
import { createIo } from "./index.ts";

export interface Fake {
  engine: Engine;
  records: Map<string, ContainerRecord>;
  calls: string[];
}

/** An engine whose files lie below `dir`. */
export function fakeEngine(dir: string): Fake {
  const records = new Map<string, ContainerRecord>();
  const calls: string[] = [];
  const engine = {
    config: { dataRoot: `${dir}/data`, execRoot: `${dir}/exec`, logDriver: "json-file", logOpts: {} },
    signal: new AbortController().signal,
    log() {},
    manager: {
      tasks: {
        async closeIO(request: { containerId: string; execId: string }) {
          calls.push(`closeIO ${request.containerId} ${request.execId}`.trim());
          return {};
        },
        async resizePty(request: { width: number; height: number }) {
          calls.push(`resize ${request.width}x${request.height}`);
          return {};
        },
      },
    },
    containers: {
      get: (id: string) => records.get(id),
      list: () => [...records.values()],
      pid: () => 0,
    },
  } as unknown as Engine;
  engine.events = createEvents(engine);
  engine.io = createIo(engine);
  return { engine, records, calls };
}

export function fakeRecord(dir: string, id: string, change: (record: ContainerRecord) => void = () => {}): ContainerRecord {
  const record = {
    id,
    name: `name-${id}`,
    config: { Image: "busybox", Labels: {}, Env: [] },
    hostConfig: { LogConfig: { Type: "json-file", Config: {} } },
    state: { Running: true },
    image: { id: "sha256:00", ref: "busybox" },
    mounts: [],
    logPath: "",
    dir: `${dir}/data/containers/${id}`,
  } as unknown as ContainerRecord;
  change(record);
  return record;
}
