// The tree of commands: name, one line of help, and how to load it. Nothing is loaded before it is run.
import type { Command } from "./command.ts";

// biome-ignore lint/suspicious/noExplicitAny: each command has its own flags; the caller passes on what the flags' own parser made
export type Loader = () => Promise<{ default: Command<any> }>;

export interface Leaf {
  short: string;
  load: Loader;
  hidden?: true;
}

export interface Group {
  short: string;
  children: Record<string, Leaf>;
  /** Other names of children. */
  aliases: Record<string, string>;
}

export type Entry = Leaf | Group;
export const isGroup = (entry: Entry): entry is Group => "children" in entry;

const leaf = (short: string, load: Loader): Leaf => ({ short, load });

const attach = leaf("Attach local standard input, output, and error streams to a running container", () => import("./commands/attach.ts"));
const build = leaf("Build an image from a Dockerfile", () => import("./commands/build.ts"));
const commit = leaf("Create a new image from a container's changes", () => import("./commands/commit.ts"));
const cp = leaf("Copy files/folders between a container and the local filesystem", () => import("./commands/cp.ts"));
const create = leaf("Create a new container", () => import("./commands/create.ts"));
const diff = leaf("Inspect changes to files or directories on a container's filesystem", () => import("./commands/diff.ts"));
const events = leaf("Get real time events from the server", () => import("./commands/events.ts"));
const exec = leaf("Execute a command in a running container", () => import("./commands/exec.ts"));
const exportCommand = leaf("Export a container's filesystem as a tar archive", () => import("./commands/export.ts"));
const history = leaf("Show the history of an image", () => import("./commands/history.ts"));
const images = leaf("List images", () => import("./commands/images.ts"));
const importCommand = leaf("Import the contents from a tarball to create a filesystem image", () => import("./commands/import.ts"));
const info = leaf("Display system-wide information", () => import("./commands/info.ts"));
const inspect = leaf("Return low-level information on Docker objects", () => import("./commands/inspect.ts"));
const kill = leaf("Kill one or more running containers", () => import("./commands/kill.ts"));
const load = leaf("Load an image from a tar archive or STDIN", () => import("./commands/load.ts"));
const logs = leaf("Fetch the logs of a container", () => import("./commands/logs.ts"));
const pause = leaf("Pause all processes within one or more containers", () => import("./commands/pause.ts"));
const port = leaf("List port mappings or a specific mapping for the container", () => import("./commands/port.ts"));
const ps = leaf("List containers", () => import("./commands/ps.ts"));
const pull = leaf("Download an image from a registry", () => import("./commands/pull.ts"));
const push = leaf("Upload an image to a registry", () => import("./commands/push.ts"));
const rename = leaf("Rename a container", () => import("./commands/rename.ts"));
const restart = leaf("Restart one or more containers", () => import("./commands/restart.ts"));
const rm = leaf("Remove one or more containers", () => import("./commands/rm.ts"));
const rmi = leaf("Remove one or more images", () => import("./commands/rmi.ts"));
const run = leaf("Create and run a new container from an image", () => import("./commands/run.ts"));
const save = leaf("Save one or more images to a tar archive (streamed to STDOUT by default)", () => import("./commands/save.ts"));
const start = leaf("Start one or more stopped containers", () => import("./commands/start.ts"));
const stats = leaf("Display a live stream of container(s) resource usage statistics", () => import("./commands/stats.ts"));
const stop = leaf("Stop one or more running containers", () => import("./commands/stop.ts"));
const tag = leaf("Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", () => import("./commands/tag.ts"));
const top = leaf("Display the running processes of a container", () => import("./commands/top.ts"));
const unpause = leaf("Unpause all processes within one or more containers", () => import("./commands/unpause.ts"));
const update = leaf("Update configuration of one or more containers", () => import("./commands/update.ts"));
const wait = leaf("Block until one or more containers stop, then print their exit codes", () => import("./commands/wait.ts"));

const container: Group = {
  short: "Manage containers",
  children: {
    attach,
    commit,
    cp,
    create,
    diff,
    exec,
    export: exportCommand,
    inspect: leaf("Display detailed information on one or more containers", () => import("./commands/container/inspect.ts")),
    kill,
    logs,
    ls: ps,
    pause,
    port,
    prune: leaf("Remove all stopped containers", () => import("./commands/container/prune.ts")),
    rename,
    restart,
    rm,
    run,
    start,
    stats,
    stop,
    top,
    unpause,
    update,
    wait,
  },
  aliases: { list: "ls", ps: "ls", remove: "rm" },
};

const builder: Group = {
  short: "Manage builds",
  children: {
    build,
    du: leaf("Disk usage of the build cache", () => import("./commands/builder/du.ts")),
    prune: leaf("Remove build cache", () => import("./commands/builder/prune.ts")),
  },
  aliases: {},
};

const checkpoint: Group = {
  short: "Manage checkpoints",
  children: {
    create: leaf("Create a checkpoint from a running container", () => import("./commands/checkpoint/create.ts")),
    ls: leaf("List checkpoints for a container", () => import("./commands/checkpoint/ls.ts")),
    rm: leaf("Remove a checkpoint", () => import("./commands/checkpoint/rm.ts")),
  },
  aliases: { list: "ls", remove: "rm" },
};

const image: Group = {
  short: "Manage images",
  children: {
    build,
    history,
    import: importCommand,
    inspect: leaf("Display detailed information on one or more images", () => import("./commands/image/inspect.ts")),
    load,
    ls: images,
    prune: leaf("Remove unused images", () => import("./commands/image/prune.ts")),
    pull,
    push,
    rm: rmi,
    save,
    tag,
  },
  aliases: { list: "ls", remove: "rm" },
};

const network: Group = {
  short: "Manage networks",
  children: {
    connect: leaf("Connect a container to a network", () => import("./commands/network/connect.ts")),
    create: leaf("Create a network", () => import("./commands/network/create.ts")),
    disconnect: leaf("Disconnect a container from a network", () => import("./commands/network/disconnect.ts")),
    inspect: leaf("Display detailed information on one or more networks", () => import("./commands/network/inspect.ts")),
    ls: leaf("List networks", () => import("./commands/network/ls.ts")),
    prune: leaf("Remove all unused networks", () => import("./commands/network/prune.ts")),
    rm: leaf("Remove one or more networks", () => import("./commands/network/rm.ts")),
  },
  aliases: { list: "ls", remove: "rm" },
};

const volume: Group = {
  short: "Manage volumes",
  children: {
    create: leaf("Create a volume", () => import("./commands/volume/create.ts")),
    inspect: leaf("Display detailed information on one or more volumes", () => import("./commands/volume/inspect.ts")),
    ls: leaf("List volumes", () => import("./commands/volume/ls.ts")),
    prune: leaf("Remove unused local volumes", () => import("./commands/volume/prune.ts")),
    rm: leaf("Remove one or more volumes", () => import("./commands/volume/rm.ts")),
  },
  aliases: { list: "ls", remove: "rm" },
};

const system: Group = {
  short: "Manage Docker",
  children: {
    df: leaf("Show docker disk usage", () => import("./commands/system/df.ts")),
    events,
    info,
    prune: leaf("Remove unused data", () => import("./commands/system/prune.ts")),
    "dial-stdio": {
      ...leaf("Proxy the stdio stream to the daemon connection", () => import("./commands/system/dial-stdio.ts")),
      hidden: true,
    },
  },
  aliases: {},
};

const context: Group = {
  short: "Manage contexts",
  children: {
    inspect: leaf("Display detailed information on one or more contexts", () => import("./commands/context/inspect.ts")),
    ls: leaf("List contexts", () => import("./commands/context/ls.ts")),
    show: leaf("Print the name of the current context", () => import("./commands/context/show.ts")),
    use: leaf("Set the current docker context", () => import("./commands/context/use.ts")),
  },
  aliases: { list: "ls" },
};

const manifest: Group = {
  short: "Manage Docker image manifests and manifest lists",
  children: {
    annotate: leaf("Add additional information to a local image manifest", () => import("./commands/manifest/annotate.ts")),
    create: leaf("Create a local manifest list for annotating and pushing to a registry", () => import("./commands/manifest/create.ts")),
    inspect: leaf("Display an image manifest, or manifest list", () => import("./commands/manifest/inspect.ts")),
    push: leaf("Push a manifest list to a repository", () => import("./commands/manifest/push.ts")),
    rm: leaf("Delete one or more manifest lists from local storage", () => import("./commands/manifest/rm.ts")),
  },
  aliases: {},
};

const login = leaf("Authenticate to a registry", () => import("./commands/login.ts"));
const logout = leaf("Log out from a registry", () => import("./commands/logout.ts"));
const search = leaf("Search Docker Hub for images", () => import("./commands/search.ts"));
const trace = leaf("Run a command and show its path through every layer", () => import("./commands/trace.ts"));
const version = leaf("Show the Docker version information", () => import("./commands/version.ts"));

/** As help shows them. */
export const sections: { title: string; entries: Record<string, Entry> }[] = [
  { title: "Common Commands", entries: { run, exec, ps, build, pull, push, images, login, logout, search, version, info } },
  { title: "Management Commands", entries: { builder, checkpoint, container, context, image, manifest, network, system, volume } },
  {
    title: "Commands",
    entries: {
      attach,
      commit,
      cp,
      create,
      diff,
      events,
      export: exportCommand,
      history,
      import: importCommand,
      inspect,
      kill,
      load,
      logs,
      pause,
      port,
      rename,
      restart,
      rm,
      rmi,
      save,
      start,
      stats,
      stop,
      tag,
      top,
      trace,
      unpause,
      update,
      wait,
    },
  },
];

export function find(name: string): Entry | undefined {
  for (const { entries } of sections) if (Object.hasOwn(entries, name)) return entries[name];
  return undefined;
}

/** Commands of docker's that are not ours yet: said in words rather than "unknown command". */
export const later: Record<string, string> = {
  manifest: "manifest lists come with a later version",
  plugin: "plugins come with a later version",
  trust: "content trust is not planned",
  config: "swarm mode is not planned",
  node: "swarm mode is not planned",
  secret: "swarm mode is not planned",
  service: "swarm mode is not planned",
  stack: "swarm mode is not planned",
  swarm: "swarm mode is not planned",
};
