// /volumes of the Engine API.

import { randomBytes } from "node:crypto";
import type { Volume, VolumeCreateRequest } from "../../api/types.ts";
import { conflict, invalidArgument, notFound } from "../../lib/errors.ts";
import type { Engine } from "../context.ts";
import { booleanFilter, matchLabels, parseFilters } from "../events/filter.ts";
import { flag, type Route } from "../route.ts";
import type { Volumes } from "./index.ts";
import { directorySize } from "./size.ts";

function record(value: unknown, name: string): Record<string, string> {
  if (value === undefined || value === null) return {};
  if (typeof value !== "object" || Array.isArray(value)) throw invalidArgument(`invalid JSON: ${name} must be an object`);
  for (const each of Object.values(value))
    if (typeof each !== "string") throw invalidArgument(`invalid JSON: ${name} must have strings as values`);
  return value as Record<string, string>;
}

export function routes(engine: Engine): Route[] {
  const volumes = engine.volumes as Volumes;
  const { store } = volumes;
  const get = (name: string) => {
    const volume = store.get(name);
    if (!volume) throw notFound(`get ${name}: no such volume`);
    return volume;
  };

  return [
    {
      method: "GET",
      path: "/volumes",
      handle(call) {
        const filters = parseFilters(call.query.get("filters"), ["dangling", "driver", "label", "name"]);
        const dangling = booleanFilter(filters, "dangling");
        const drivers = filters.get("driver");
        const names = filters.get("name");
        const list: Volume[] = [];
        for (const volume of store.list()) {
          if (drivers && drivers.length > 0 && !drivers.includes(volume.driver)) continue;
          if (names && names.length > 0 && !names.some((name) => volume.name.includes(name))) continue;
          if (!matchLabels(filters.get("label"), volume.labels)) continue;
          if (dangling !== undefined && (volumes.users(volume.name).length === 0) !== dangling) continue;
          list.push(store.toApi(volume));
        }
        return { json: { Volumes: list, Warnings: null } };
      },
    },
    {
      method: "POST",
      path: "/volumes/create",
      async handle(call) {
        const body = ((await call.json()) ?? {}) as VolumeCreateRequest;
        if (body.ClusterVolumeSpec) throw invalidArgument("cluster volumes are not part of this engine");
        const name = body.Name ?? "";
        const driver = body.Driver || "local";
        const labels = record(body.Labels, "Labels");
        const existing = store.get(name);
        if (existing && existing.driver !== driver) {
          throw conflict(`a volume named "${name}" already exists with the "${existing.driver}" driver. Choose a different volume name`);
        }
        const anonymous = name === "";
        const own = anonymous ? { ...labels, "com.docker.volume.anonymous": "" } : labels;
        const volume = volumes.create(
          name || randomBytes(32).toString("hex"),
          driver,
          record(body.DriverOpts, "DriverOpts"),
          own,
          anonymous,
        );
        return { status: 201, json: store.toApi(volume) };
      },
    },
    { method: "GET", path: "/volumes/{name}", handle: (call) => ({ json: store.toApi(get(call.params.name!)) }) },
    {
      method: "DELETE",
      path: "/volumes/{name}",
      async handle(call) {
        await volumes.remove(call.params.name!, flag(call.query, "force"));
        return { status: 204 };
      },
    },
    {
      method: "POST",
      path: "/volumes/prune",
      since: 25,
      async handle(call) {
        const filters = parseFilters(call.query.get("filters"), ["label", "label!", "all"]);
        // Until API 1.42 prune took named volumes too.
        const all = call.version < 42 || (booleanFilter(filters, "all") ?? false);
        const not = filters.get("label!") ?? [];
        const deleted: string[] = [];
        let reclaimed = 0;
        for (const volume of store.list()) {
          if (!all && !volume.anonymous) continue;
          if (!matchLabels(filters.get("label"), volume.labels)) continue;
          if (not.length > 0 && matchLabels(not, volume.labels)) continue;
          if (volumes.users(volume.name).length > 0) continue;
          const size = await directorySize(store.path(volume.name));
          try {
            await volumes.remove(volume.name, false);
          } catch (error) {
            engine.log("warn", "volume could not be pruned", { volume: volume.name, error: String(error) });
            continue;
          }
          deleted.push(volume.name);
          reclaimed += size;
        }
        engine.events.publish("volume", "prune", "", { reclaimed: String(reclaimed) });
        return { json: { VolumesDeleted: deleted, SpaceReclaimed: reclaimed } };
      },
    },
  ];
}
