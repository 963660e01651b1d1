// GET /containers/json: filters, and the summary of each container.
import type { ContainerSummary, PortSummary } from "../../api/types.ts";
import { invalidArgument, isKind } from "../../lib/errors.ts";
import type { ContainerRecord } from "../context.ts";
import type { Entry } from "./book.ts";
import type { Core } from "./core.ts";
import { shownEndpoints } from "./endpoints.ts";
import { sizesOf } from "./inspect.ts";
import { statusText } from "./status.ts";

export type Filters = Record<string, string[]>;

/** The `filters` parameter: JSON, name → values; older clients send name → {value: true}. */
export function parseFilters(text: string | null, accepted: readonly string[]): Filters {
  if (!text) return {};
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw invalidArgument("invalid filter");
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) throw invalidArgument("invalid filter");
  const filters: Filters = {};
  for (const [name, value] of Object.entries(parsed)) {
    if (!accepted.includes(name)) throw invalidArgument(`invalid filter '${name}'`);
    const list = Array.isArray(value) ? value : typeof value === "object" && value !== null ? Object.keys(value) : undefined;
    if (!list?.every((each): each is string => typeof each === "string")) throw invalidArgument("invalid filter");
    filters[name] = list;
  }
  return filters;
}

export const LIST_FILTERS = [
  "ancestor",
  "before",
  "exited",
  "expose",
  "health",
  "id",
  "is-task",
  "isolation",
  "label",
  "name",
  "network",
  "publish",
  "since",
  "status",
  "volume",
] as const;

const STATUSES = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS = ["starting", "healthy", "unhealthy", "none"];

export function labelMatches(labels: Record<string, string> | undefined, wanted: string[]): boolean {
  return wanted.every((each) => {
    const equals = each.indexOf("=");
    const key = equals < 0 ? each : each.slice(0, equals);
    const value = labels?.[key];
    return value !== undefined && (equals < 0 || value === each.slice(equals + 1));
  });
}

type Test = (record: ContainerRecord) => boolean;

/** "8080", "8080/tcp", "8000-8010/udp" → whether a port is meant. */
function portTest(values: string[]): (port: string) => boolean {
  const ranges = values.map((each) => {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/.exec(each);
    if (!match) throw invalidArgument(`invalid filter 'publish=${each}'`);
    return { from: Number(match[1]), to: Number(match[2] ?? match[1]), protocol: match[3] ?? "tcp" };
  });
  return (port) => {
    const [number, protocol = "tcp"] = port.split("/");
    return ranges.some((range) => range.protocol === protocol && Number(number) >= range.from && Number(number) <= range.to);
  };
}

function nameTest(values: string[]): Test {
  const patterns = values.map((each) => {
    try {
      return new RegExp(each);
    } catch {
      return { test: (name: string) => name.includes(each) };
    }
  });
  return ({ name }) => patterns.some((pattern) => pattern.test(`/${name}`) || pattern.test(name));
}

async function ancestorTest(core: Core, values: string[]): Promise<Test> {
  const ids = new Set<string>();
  for (const value of values) {
    try {
      ids.add((await core.engine.images.resolve(value)).id);
    } catch (error) {
      if (!isKind(error, "NotFound")) throw error;
    }
  }
  return ({ image }) => ids.has(image.id) || values.includes(image.ref);
}

async function testsOf(core: Core, filters: Filters): Promise<Test[]> {
  const tests: Test[] = [];
  const any = (name: string, test: (values: string[]) => Test) => {
    const values = filters[name];
    if (values?.length) tests.push(test(values));
  };
  const refuse = (name: string, values: string[], allowed: string[]) => {
    const bad = values.find((each) => !allowed.includes(each));
    if (bad !== undefined) throw invalidArgument(`invalid filter '${name}=${bad}'`);
  };
  any(
    "id",
    (values) =>
      ({ id }) =>
        values.some((each) => id.startsWith(each)),
  );
  any("name", nameTest);
  any(
    "label",
    (values) =>
      ({ config }) =>
        labelMatches(config.Labels, values),
  );
  any("status", (values) => {
    refuse("status", values, STATUSES);
    return ({ state }) => values.includes(state.Status ?? "");
  });
  any("health", (values) => {
    refuse("health", values, HEALTHS);
    return ({ state }) => values.includes(state.Health?.Status || "none");
  });
  any("exited", (values) => {
    const codes = values.map((each) => {
      if (!/^-?\d+$/.test(each)) throw invalidArgument(`invalid filter 'exited=${each}'`);
      return Number(each);
    });
    return ({ state }) => !state.Running && !state.StartedAt?.startsWith("0001") && codes.includes(state.ExitCode ?? 0);
  });
  any(
    "volume",
    (values) =>
      ({ mounts }) =>
        mounts.some((mount) => values.includes(mount.Name ?? "") || values.includes(mount.Destination ?? "")),
  );
  any(
    "network",
    (values) =>
      ({ networks }) =>
        Object.entries(networks).some(
          ([name, each]) => values.includes(name) || values.some((value) => value !== "" && each.NetworkID?.startsWith(value)),
        ),
  );
  any("publish", (values) => {
    const test = portTest(values);
    return ({ hostConfig }) =>
      Object.entries(hostConfig.PortBindings ?? {}).some(
        ([port, list]) => test(port) || (list ?? []).some((each) => test(`${each.HostPort}/${port.split("/")[1]}`)),
      );
  });
  any("expose", (values) => {
    const test = portTest(values);
    return ({ config }) => Object.keys(config.ExposedPorts ?? {}).some(test);
  });
  any("is-task", (values) => () => values.includes("false"));
  for (const [name, later] of [
    ["before", false],
    ["since", true],
  ] as const) {
    any(name, (values) => {
      const times = values.map((each) => core.book.find(each).record.created);
      return ({ created }) => times.some((time) => (later ? created > time : created < time));
    });
  }
  if (filters.ancestor?.length) tests.push(await ancestorTest(core, filters.ancestor));
  return tests;
}

export async function listContainers(
  core: Core,
  options: { all: boolean; limit: number; size: boolean; filters: Filters; version: number },
): Promise<ContainerSummary[]> {
  const { filters } = options;
  const everything = options.all || options.limit > 0 || ["status", "exited", "before", "since"].some((name) => filters[name]?.length);
  const tests = await testsOf(core, filters);
  const chosen: Entry[] = [];
  for (const entry of core.book.entries()) {
    if (!everything && !entry.record.state.Running) continue;
    if (!tests.every((test) => test(entry.record))) continue;
    chosen.push(entry);
    if (options.limit > 0 && chosen.length >= options.limit) break;
  }
  const now = Date.now();
  const summaries = chosen.map(({ record }) => summary(record, now, options.version));
  if (!options.size) return summaries;
  return Promise.all(summaries.map(async (each, i) => ({ ...each, ...(await sizesOf(core, chosen[i]!.record)) })));
}

function portsOf(record: ContainerRecord): PortSummary[] {
  const list: PortSummary[] = [];
  if (!record.state.Running) return list;
  for (const [port, bindings] of Object.entries(record.networkSettings.Ports ?? {})) {
    const [number, type = "tcp"] = port.split("/");
    const own = { PrivatePort: Number(number), Type: type as PortSummary["Type"] };
    if (!bindings?.length) list.push(own);
    for (const each of bindings ?? []) list.push({ IP: each.HostIp ?? "", ...own, PublicPort: Number(each.HostPort) });
  }
  return list;
}

function commandOf(record: ContainerRecord): string {
  const quoted = record.args.map((each) => (each.includes(" ") ? `'${each}'` : each));
  return [record.path, ...quoted].join(" ");
}

function summary(record: ContainerRecord, now: number, version: number): ContainerSummary {
  const { hostConfig, state } = record;
  return {
    Id: record.id,
    Names: [`/${record.name}`],
    Image: record.image.ref,
    ImageID: record.image.id,
    Command: commandOf(record),
    Created: Math.floor(Date.parse(record.created) / 1000),
    Ports: portsOf(record),
    Labels: record.config.Labels ?? {},
    State: state.Status ?? "created",
    Status: statusText(state, now),
    HostConfig: {
      NetworkMode: hostConfig.NetworkMode ?? "default",
      ...(hostConfig.Annotations && Object.keys(hostConfig.Annotations).length > 0 ? { Annotations: hostConfig.Annotations } : {}),
    },
    ...(version < 52 ? {} : { Health: { Status: state.Health?.Status ?? "none", FailingStreak: state.Health?.FailingStreak ?? 0 } }),
    NetworkSettings: { Networks: shownEndpoints(record.networks, version) },
    Mounts: record.mounts,
  };
}
