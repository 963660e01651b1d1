// Containers that a client's frontend asks for beside its build (LLBBridge.NewContainer, ExecProcess): `buildx debug` enters what a step left, or a result. One call
// of ExecProcess carries any number of processes, by their ids.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { SessionContainer, StepProcess } from "../../build/index.ts";
import type { ExecMessage, ExecMessageSchema, NewContainerRequest } from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import { type Meta, NetMode, SecurityMode } from "../../gen/pb_pb.ts";
import { alreadyExists, invalidArgument, messageOf, notFound, resourceExhausted, unknown } from "../../lib/errors.ts";
import type { Build } from "./builds.ts";
import { toStatus } from "./errors.ts";
import { createQueue } from "./queue.ts";

const MAX_CONTAINERS = 64;
const MAX_PROCESSES = 256;
/** What a client sees where there is no exit status. */
const UNKNOWN_EXIT = 0xffff_ffff;
const NETWORKS = { [NetMode.UNSET]: "default", [NetMode.HOST]: "host", [NetMode.NONE]: "none" };

type Message = MessageInitShape<typeof ExecMessageSchema>;

const containers = new WeakMap<Build, Map<string, SessionContainer>>();
const of = (build: Build): Map<string, SessionContainer> => {
  const known = containers.get(build) ?? new Map<string, SessionContainer>();
  containers.set(build, known);
  return known;
};

export async function newContainer(build: Build, request: NewContainerRequest): Promise<void> {
  const known = of(build);
  const id = request.ContainerID;
  if (id === "" || id.length > 128) throw invalidArgument("a container needs an id");
  if (known.has(id)) throw alreadyExists(`container ${id} already exists`);
  if (known.size >= MAX_CONTAINERS) throw resourceExhausted(`a build has more than ${MAX_CONTAINERS} containers`);
  const { platform } = request;
  const container = await build.session.container({
    mounts: request.Mounts.map((mount) => ({ mount, ref: build.reference(mount.resultID) })),
    network: NETWORKS[request.Network] ?? "default",
    hostname: request.hostname,
    extraHosts: request.extraHosts,
    ...(platform?.OS ? { platform: { os: platform.OS, architecture: platform.Architecture } } : {}),
  });
  known.set(id, container);
}

export async function releaseContainer(build: Build, id: string): Promise<void> {
  const container = of(build).get(id);
  of(build).delete(id);
  await container?.release();
}

async function begin(build: Build, message: ExecMessage, answer: (input: Message["Input"]) => void): Promise<StepProcess> {
  if (message.Input.case !== "Init") throw invalidArgument(`process ${message.ProcessID} was not started`);
  const { ContainerID, Meta: meta, Fds, Tty, Security, secretenv } = message.Input.value;
  const container = of(build).get(ContainerID);
  if (!container) throw notFound(`container ${JSON.stringify(ContainerID)} previously released or not created`);
  const { args, env, cwd, user } = meta ?? ({ args: [], env: [], cwd: "", user: "" } as Pick<Meta, "args" | "env" | "cwd" | "user">);
  return container.run({
    args,
    env,
    cwd,
    user,
    terminal: Tty,
    input: Fds.includes(0),
    insecure: Security === SecurityMode.INSECURE,
    secretEnv: secretenv.map(({ ID, name, optional }) => ({ id: ID, name, optional })),
    onOutput(stream, bytes) {
      if (Fds.includes(stream)) answer({ case: "File", value: { Fd: stream, EOF: false, Data: bytes } });
    },
  });
}

/** Serves one ExecProcess call. */
export async function* execProcess(build: Build, messages: AsyncIterable<ExecMessage>): AsyncGenerator<Message> {
  const answers = createQueue<Message>(256);
  const processes = new Map<string, Promise<StepProcess>>();

  function start(message: ExecMessage): void {
    const { ProcessID } = message;
    const answer = (Input: Message["Input"]) => answers.push({ ProcessID, ...(Input ? { Input } : {}) });
    if (processes.size >= MAX_PROCESSES) throw resourceExhausted(`more than ${MAX_PROCESSES} processes`);
    const process = begin(build, message, answer);
    processes.set(ProcessID, process);
    const exit = (code: number, error: unknown) => {
      processes.delete(ProcessID);
      answer({ case: "Exit", value: { Code: code, ...(error === undefined ? {} : { Error: toStatus(error) }) } });
      answer({ case: "Done", value: {} });
    };
    process
      .then(async ({ exited }) => {
        answer({ case: "Started", value: {} });
        const code = await exited;
        exit(code, code === 0 ? undefined : unknown(`exit code: ${code}`));
      })
      .catch((error: unknown) => {
        // A client waits for the beginning before it hears of an end.
        answer({ case: "Started", value: {} });
        exit(UNKNOWN_EXIT, error);
      });
  }

  async function take(message: ExecMessage): Promise<void> {
    if (message.Input.case === "Init") {
      start(message);
      return;
    }
    const process = await processes.get(message.ProcessID)?.catch(() => undefined);
    // it may have ended meanwhile
    if (!process) return;
    switch (message.Input.case) {
      case "File": {
        const { Data, EOF } = message.Input.value;
        if (Data.length > 0) await process.write(Data);
        if (EOF) process.closeInput();
        break;
      }
      case "Resize":
        await process.resize(message.Input.value.Rows, message.Input.value.Cols);
        break;
      case "Signal":
        await process.signal(message.Input.value.Name);
        break;
    }
  }

  void (async () => {
    for await (const message of messages) {
      try {
        await take(message);
      } catch (error) {
        build.tell({ kind: "warning", vertex: "", level: 1, short: messageOf(error), detail: [], url: "", source: undefined, ranges: [] });
      }
    }
  })()
    .catch(() => {})
    .finally(() => answers.end());
  try {
    yield* answers;
  } finally {
    for (const process of processes.values()) void process.then((each) => each.signal("KILL")).catch(() => {});
  }
}
