// /networks of the Engine API.
import type { EndpointSettings } from "../../api/types.ts";
import { conflict, invalidArgument, messageOf } from "../../lib/errors.ts";
import { booleanFilter, matchLabels, parseFilters } from "../events/filter.ts";
import type { Call, Route } from "../route.ts";
import { connect, disconnect } from "./connect.ts";
import { createNetwork, parseCreate, removeNetwork } from "./create.ts";
import { networkJson } from "./inspect.ts";
import { findNetwork, type State } from "./registry.ts";
import type { Network } from "./state.ts";
import { parseUntil } from "./until.ts";

const LIST_FILTERS = ["dangling", "driver", "id", "label", "name", "scope", "type"] as const;

function list(state: State, call: Call): Network[] {
  const filters = parseFilters(call.query.get("filters"), LIST_FILTERS);
  const dangling = booleanFilter(filters, "dangling");
  const types = filters.get("type") ?? [];
  for (const type of types) if (type !== "custom" && type !== "builtin") throw invalidArgument(`invalid filter: 'type'='${type}'`);
  const some = (name: string, test: (value: string) => boolean) => {
    const values = filters.get(name);
    return !values || values.length === 0 || values.some(test);
  };
  return [...state.networks.values()]
    .filter(
      ({ record, predefined, endpoints }) =>
        some("driver", (v) => record.driver === v) &&
        some("id", (v) => record.id.startsWith(v)) &&
        some("name", (v) => record.name.includes(v)) &&
        some("scope", (v) => v === "local") &&
        some("type", (v) => (v === "builtin") === predefined) &&
        matchLabels(filters.get("label"), record.labels) &&
        (dangling === undefined || dangling === (!predefined && endpoints.size === 0)),
    )
    .sort((a, b) => (a.record.name < b.record.name ? -1 : 1));
}

interface Body {
  Container?: unknown;
  EndpointConfig?: unknown;
  Force?: unknown;
}

async function containerOf(call: Call): Promise<{ container: string; endpoint: EndpointSettings | undefined; force: boolean }> {
  const body = (await call.json()) as Body | null | undefined;
  if (typeof body !== "object" || body === null || typeof body.Container !== "string" || body.Container === "")
    throw invalidArgument("invalid container: name or ID is missing");
  const endpoint = body.EndpointConfig ?? undefined;
  if (endpoint !== undefined && (typeof endpoint !== "object" || Array.isArray(endpoint)))
    throw invalidArgument("EndpointConfig is not an object");
  return { container: body.Container, endpoint: endpoint as EndpointSettings | undefined, force: body.Force === true };
}

async function prune(state: State, call: Call): Promise<string[]> {
  const filters = parseFilters(call.query.get("filters"), ["until", "label", "label!"]);
  const until = filters.get("until");
  if (until && until.length > 1) throw invalidArgument("more than one until filter specified");
  const before = until?.[0] === undefined ? undefined : parseUntil(until[0]);
  const deleted: string[] = [];
  const used = new Set<string>();
  for (const record of state.engine.containers.list()) for (const name of Object.keys(record.networks)) used.add(name);
  for (const network of [...state.networks.values()]) {
    const { record } = network;
    if (network.predefined || record.configOnly || network.endpoints.size > 0 || used.has(record.name) || used.has(record.id)) continue;
    if (before !== undefined && Date.parse(record.created) > before) continue;
    if (!matchLabels(filters.get("label"), record.labels)) continue;
    const unwanted = filters.get("label!");
    if (unwanted?.some((label) => matchLabels([label], record.labels))) continue;
    try {
      await removeNetwork(state, network);
      deleted.push(record.name);
    } catch (error) {
      state.engine.log("warn", `pruning network ${record.name}: ${messageOf(error)}`);
    }
  }
  state.engine.events.publish("network", "prune", "", { reclaimed: "0" });
  return deleted;
}

let pruning = false;

export function networkRoutes(state: State): Route[] {
  return [
    {
      method: "GET",
      path: "/networks",
      handle: (call) => ({ json: list(state, call).map((n) => networkJson(n, call.version, call.version < 28)) }),
    },
    {
      method: "GET",
      path: "/networks/{id}",
      handle(call) {
        const scope = call.query.get("scope") ?? "";
        if (scope !== "" && !["local", "swarm", "global"].includes(scope)) throw invalidArgument(`invalid scope: ${scope}`);
        const network = findNetwork(state, call.params.id!);
        if (scope === "swarm" || scope === "global") findNetwork(state, `${call.params.id} of scope ${scope}`);
        return { json: networkJson(network, call.version, true) };
      },
    },
    {
      method: "POST",
      path: "/networks/create",
      async handle(call) {
        const network = createNetwork(state, parseCreate(await call.json()));
        return { status: 201, json: { Id: network.record.id, Warning: "" } };
      },
    },
    {
      method: "DELETE",
      path: "/networks/{id}",
      async handle(call) {
        await removeNetwork(state, findNetwork(state, call.params.id!));
        return { status: 204 };
      },
    },
    {
      method: "POST",
      path: "/networks/{id}/connect",
      async handle(call) {
        const { container, endpoint } = await containerOf(call);
        connect(state, findNetwork(state, call.params.id!), container, endpoint);
        return { status: 200 };
      },
    },
    {
      method: "POST",
      path: "/networks/{id}/disconnect",
      async handle(call) {
        const { container, force } = await containerOf(call);
        await disconnect(state, findNetwork(state, call.params.id!), container, force);
        return { status: 200 };
      },
    },
    {
      method: "POST",
      path: "/networks/prune",
      since: 25,
      async handle(call) {
        if (pruning) throw conflict("a prune operation is already running");
        pruning = true;
        try {
          return { json: { NetworksDeleted: await prune(state, call) } };
        } finally {
          pruning = false;
        }
      },
    },
  ];
}
