// --on-failure shell: the container of the step that failed, as it was: its files as the command left them, its mounts, secrets, network, user, environment and
// directory. The error says what it is made of; the builder keeps it until we let go.
import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import type { BuildKit } from "../../client/index.ts";
import { SolveSchema } from "../../gen/errdefs_pb.ts";
import { ExecMessageSchema } from "../../gen/moby/buildkit/v1/frontend_pb.ts";
import { MetaSchema } from "../../gen/pb_pb.ts";
import type { Detail, RpcFailure } from "../../lib/grpc/status.ts";
import type { Cli } from "../command.ts";
import { readInput } from "../terminal/input.ts";
import { followSize } from "../terminal/session.ts";
import { rawMode, terminalSize } from "../terminal/tty.ts";

type Message = MessageInitShape<typeof ExecMessageSchema>;

const CONTAINER = "failed";
const PROCESS = "shell";

/** Runs a shell in the failed step's container until it ends; false where the error is about no command. */
export async function enterFailed(
  cli: Cli,
  gateway: Awaited<ReturnType<BuildKit["gateway"]>>,
  headers: Record<string, string>,
  error: RpcFailure,
): Promise<boolean> {
  const detail = error.details.find((each): each is Detail => "type" in each && "value" in each && each.type.endsWith("errdefs.Solve"));
  if (!detail) return false;
  const { op, mountIDs } = fromBinary(SolveSchema, detail.value);
  if (op?.op.case !== "exec") return false;
  const { meta, mounts, network, security, secretenv } = op.op.value;
  const { extraHosts = [], hostname = "" } = meta ?? {};
  await gateway.newContainer(
    {
      ContainerID: CONTAINER,
      Mounts: mounts.map((mount, i) => ({ ...mount, resultID: mountIDs[i] ?? "" })),
      Network: network,
      extraHosts,
      hostname,
    },
    { headers },
  );

  const terminal = cli.isTty(0) && cli.isTty(1);
  const queue: Message[] = [];
  let wake = () => {};
  let over = false;
  const send = (Input: Message["Input"]) => {
    queue.push({ ProcessID: PROCESS, ...(Input ? { Input } : {}) });
    wake();
  };
  async function* messages() {
    while (!over || queue.length > 0) {
      const next = queue.shift();
      if (next) yield create(ExecMessageSchema, next);
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  }
  const shell = create(MetaSchema, {
    ...(meta ? { env: meta.env, cwd: meta.cwd, user: meta.user } : {}),
    args: ["/bin/sh"],
  });
  send({
    case: "Init",
    value: { ContainerID: CONTAINER, Meta: shell, Fds: terminal ? [0, 1] : [0, 1, 2], Tty: terminal, Security: security, secretenv },
  });
  const resize = async () => {
    const size = terminalSize(1);
    if (size) send({ case: "Resize", value: { Rows: size.h, Cols: size.w } });
  };
  const restore = terminal ? rawMode(0) : undefined;
  const input = readInput(
    0,
    (chunk) => send({ case: "File", value: { Fd: 0, EOF: false, Data: chunk } }),
    () => send({ case: "File", value: { Fd: 0, EOF: true, Data: new Uint8Array() } }),
  );
  let unfollow = () => {};
  try {
    for await (const { Input } of gateway.execProcess(messages(), { headers })) {
      if (Input.case === "Started" && terminal) {
        await resize();
        unfollow = await followSize(resize);
      } else if (Input.case === "File") (Input.value.Fd === 2 ? cli.err : cli.out)(Input.value.Data);
      else if (Input.case === "Done") break;
    }
  } finally {
    over = true;
    wake();
    unfollow();
    input.close();
    restore?.();
    await gateway.releaseContainer({ ContainerID: CONTAINER }, { headers }).catch(() => {});
  }
  return true;
}
