// Checkpoints of containers: directories of CRIU's images, CONTAINER/checkpoints/NAME or where the client says. Only in experimental mode, as with dockerd, whose
// words these are.
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Any, AnySchema } from "@bufbuild/protobuf/wkt";
import { CheckpointOptionsSchema, OptionsSchema } from "../../gen/containerd/runc/v1_pb.ts";
import { conflict, Failure, invalidArgument, messageOf, unimplemented, unknown } from "../../lib/errors.ts";
import type { ContainerRecord } from "../context.ts";
import type { Route } from "../route.ts";
import { type Entry, locked } from "./book.ts";
import { type Core, publish } from "./core.ts";
import type { runtimeOf } from "./runtime.ts";

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

const rootOf = (record: ContainerRecord, asked: string | null | undefined) => asked || join(record.dir, "checkpoints");

function checkedName(id: string): string {
  if (!NAME.test(id)) throw invalidArgument(`Invalid checkpoint ID (${id}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  return id;
}

/** The directory of a checkpoint that is there. `shown`: the container, as the client or the record names it. */
function existing(record: ContainerRecord, asked: string | null | undefined, id: string, shown: string): string {
  const directory = join(rootOf(record, asked), id);
  const stat = statSync(directory, { throwIfNoEntry: false });
  if (!stat) throw unknown(`checkpoint ${id} does not exist for container ${shown}`);
  if (!stat.isDirectory()) throw unknown(`${directory} exists and is not a directory`);
  return directory;
}

/** What a start that names a checkpoint goes on from. */
export function checkpointToStart({ engine }: Core, record: ContainerRecord, id: string, asked: string | null): string {
  if (!engine.config.experimental) throw invalidArgument("checkpoint is only supported in experimental mode");
  if (engine.config.containerd) throw unimplemented("starting from a checkpoint over a containerd of its own");
  return existing(record, asked, checkedName(id), `/${record.name}`);
}

/** The task's options, which name the directory. */
export function withImages({ options }: ReturnType<typeof runtimeOf>, images: string): Any {
  const known = options ? fromBinary(OptionsSchema, options.value) : create(OptionsSchema);
  known.criuImagePath = images;
  return create(AnySchema, { typeUrl: OptionsSchema.typeName, value: toBinary(OptionsSchema, known) });
}

interface Wanted {
  id: string;
  directory: string | undefined;
  exit: boolean;
}

function parse(body: unknown): Wanted {
  if (body === undefined) throw unknown("EOF");
  const { CheckpointID = "", CheckpointDir = "", Exit = false } = (body ?? {}) as Record<string, unknown>;
  if (typeof CheckpointID !== "string" || typeof CheckpointDir !== "string" || typeof Exit !== "boolean")
    throw invalidArgument("CheckpointID and CheckpointDir are texts, Exit is a truth value");
  return { id: CheckpointID, directory: CheckpointDir || undefined, exit: Exit };
}

async function createCheckpoint(core: Core, entry: Entry, name: string, { id, directory: asked, exit }: Wanted): Promise<void> {
  const { record } = entry;
  if (!record.state.Running) throw conflict(`container ${record.id} is not running`);
  checkedName(id);
  if (core.engine.config.containerd) throw unimplemented("checkpoints over a containerd of its own");
  const directory = join(rootOf(record, asked), id);
  if (existsSync(directory)) {
    const why = statSync(directory).isDirectory()
      ? `checkpoint with name ${id} already exists for container ${name}`
      : `${directory} exists and is not a directory`;
    throw unknown(`cannot checkpoint container ${name}: ${why}`);
  }
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    const options = create(CheckpointOptionsSchema, { exit, imagePath: directory });
    const value = toBinary(CheckpointOptionsSchema, options);
    await core.engine.manager.tasks.checkpoint({
      containerId: record.id,
      options: create(AnySchema, { typeUrl: CheckpointOptionsSchema.typeName, value }),
    });
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    const kind = error instanceof Failure && error.kind === "Unimplemented" ? error.kind : "Unknown";
    throw new Failure(kind, `Cannot checkpoint container ${name}: ${messageOf(error)}`, { cause: error });
  }
  publish(core, record, "checkpoint");
}

function listCheckpoints(record: ContainerRecord, name: string, asked: string | null): { Name: string }[] | null {
  const root = rootOf(record, asked);
  if (!asked && !existsSync(root)) return null;
  existing(record, root, "", name);
  const all = readdirSync(root, { withFileTypes: true }).filter((each) => each.isDirectory());
  return all.length === 0 ? null : all.map((each) => ({ Name: each.name })).sort((a, b) => (a.Name < b.Name ? -1 : 1));
}

export function checkpointRoutes(core: Core): Route[] {
  const find = (name: string) => {
    if (core.engine.config.experimental) return core.book.find(name);
    throw unimplemented(
      "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
    );
  };
  return [
    {
      method: "POST",
      path: "/containers/{id}/checkpoints",
      async handle(call) {
        const name = call.params.id!;
        const entry = find(name);
        const wanted = parse(await call.json());
        await locked(entry, () => createCheckpoint(core, entry, name, wanted));
        return { status: 201 };
      },
    },
    {
      method: "GET",
      path: "/containers/{id}/checkpoints",
      handle({ params, query }) {
        return { json: listCheckpoints(find(params.id!).record, params.id!, query.get("dir")) };
      },
    },
    {
      method: "DELETE",
      path: "/containers/{id}/checkpoints/{checkpoint}",
      async handle({ params, query }) {
        const { record } = find(params.id!);
        await rm(existing(record, query.get("dir"), checkedName(params.checkpoint!), params.id!), { recursive: true, force: true });
        return { status: 204 };
      },
    },
  ];
}
