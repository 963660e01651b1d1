// The endpoints below /containers that are about containers as a whole.
import { invalidArgument, notModified, unimplemented } from "../../lib/errors.ts";
import { flag, type Route } from "../route.ts";
import { checkpointToStart } from "./checkpoint.ts";
import type { Core } from "./core.ts";
import { createContainer } from "./create.ts";
import { inspectContainer } from "./inspect.ts";
import { LIST_FILTERS, listContainers, parseFilters } from "./list.ts";
import { PRUNE_FILTERS, pruneContainers } from "./prune.ts";
import { parseCreate } from "./settings.ts";
import { killContainer, pauseContainer, restartContainer, unpauseContainer } from "./stop.ts";
import { renameContainer, updateContainer } from "./update.ts";
import { type WaitCondition, waitFor } from "./wait.ts";

function seconds(text: string | null): { timeout?: number } {
  if (text === null || text === "") return {};
  if (!/^-?\d{1,9}$/.test(text)) throw invalidArgument(`strconv.Atoi: parsing "${text}": invalid syntax`);
  return { timeout: Number(text) };
}

export function containerRoutes(core: Core): Route[] {
  const { book } = core;
  const none = { status: 204 } as const;
  return [
    {
      method: "GET",
      path: "/containers/json",
      async handle({ query, version }) {
        const limit = Number(query.get("limit") || 0);
        if (!Number.isInteger(limit)) throw invalidArgument(`invalid limit: ${query.get("limit")}`);
        const filters = parseFilters(query.get("filters"), LIST_FILTERS);
        return { json: await listContainers(core, { all: flag(query, "all"), limit, size: flag(query, "size"), filters, version }) };
      },
    },
    {
      method: "POST",
      path: "/containers/create",
      async handle(call) {
        const request = parseCreate(await call.json());
        if (call.version < 48 && request.hostConfig.Mounts?.some((mount) => mount.Type === "image"))
          throw invalidArgument('Mount type "Image" needs API v1.48 or newer');
        const platform = call.query.get("platform");
        const { record, warnings } = await createContainer(core, call.query.get("name") || undefined, request, platform || undefined);
        return { status: 201, json: { Id: record.id, Warnings: warnings } };
      },
    },
    {
      method: "GET",
      path: "/containers/{id}/json",
      async handle({ params, query, version }) {
        return { json: await inspectContainer(core, book.find(params.id!).record, { size: flag(query, "size"), version }) };
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/start",
      async handle({ params, query }) {
        const entry = book.find(params.id!);
        const checkpoint = query.get("checkpoint");
        const running = entry.record.state.Running && !entry.record.state.Restarting;
        const images = checkpoint && !running ? checkpointToStart(core, entry.record, checkpoint, query.get("checkpoint-dir")) : undefined;
        if (!(await core.start(entry, images))) throw notModified("");
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/stop",
      async handle({ params, query }) {
        const entry = book.find(params.id!);
        const signal = query.get("signal");
        const stopped = await core.stop(entry, { ...seconds(query.get("t")), ...(signal ? { signal } : {}), byUser: true });
        if (!stopped) throw notModified("");
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/restart",
      async handle({ params, query }) {
        const signal = query.get("signal");
        await restartContainer(core, book.find(params.id!), { ...seconds(query.get("t")), ...(signal ? { signal } : {}) });
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/kill",
      async handle({ params, query }) {
        const entry = book.find(params.id!);
        try {
          await killContainer(core, entry, query.get("signal") ?? "");
        } catch (error) {
          if (error instanceof Error && /is not running$/.test(error.message))
            error.message = `cannot kill container: ${params.id}: ${error.message}`;
          throw error;
        }
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/pause",
      async handle({ params }) {
        await pauseContainer(core, book.find(params.id!));
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/unpause",
      async handle({ params }) {
        await unpauseContainer(core, book.find(params.id!));
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/rename",
      async handle({ params, query }) {
        await renameContainer(core, book.find(params.id!), query.get("name"));
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/update",
      async handle(call) {
        return { json: { Warnings: await updateContainer(core, book.find(call.params.id!), await call.json()) } };
      },
    },
    {
      method: "POST",
      path: "/containers/{id}/wait",
      handle({ params, query, signal }) {
        const condition = query.get("condition") || "not-running";
        if (!["not-running", "next-exit", "removed"].includes(condition)) throw invalidArgument(`invalid condition: "${condition}"`);
        const result = waitFor(book.find(params.id!), condition as WaitCondition, signal);
        // The head goes out at once: a client starts the container when it knows that its wait is registered.
        return {
          type: "application/json",
          stream: (async function* () {
            const { status, error } = await result;
            yield `${JSON.stringify({ StatusCode: status, ...(error ? { Error: { Message: error } } : {}) })}\n`;
          })(),
        };
      },
    },
    {
      method: "DELETE",
      path: "/containers/{id}",
      async handle({ params, query }) {
        if (flag(query, "link")) throw unimplemented("removing a link (legacy links are not there)");
        const entry = book.find(params.id!);
        await core.remove(entry, { force: flag(query, "force"), volumes: flag(query, "v") });
        return none;
      },
    },
    {
      method: "POST",
      path: "/containers/prune",
      async handle({ query }) {
        return { json: await pruneContainers(core, parseFilters(query.get("filters"), PRUNE_FILTERS)) };
      },
    },
  ];
}
