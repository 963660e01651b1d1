import { messageOf } from "../../lib/errors.ts";
import { atLeast, type Cli, command, StatusError } from "../command.ts";
import { createContainer, parseOrFail, withHelp } from "../container/create.ts";
import { containerFlags } from "../container/options.ts";
import { bool, string, type Values } from "../flags.ts";
import { followSize, openSession, proxySignals, type Session } from "../terminal/session.ts";

const flags = {
  ...containerFlags,
  detach: bool("d", "Run container in background and print container ID"),
  "detach-keys": string("", "Override the key sequence for detaching a container"),
  "sig-proxy": bool("", "Proxy received signals to the process", true),
};

export default command({
  use: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
  short: "Create and run a new container from an image",
  args: atLeast(1),
  flags,
  interspersed: false,
  async run(cli, flags, args) {
    const parsed = parseOrFail(cli, flags, args);
    const { body } = parsed;
    if (flags.detach) {
      if (flags.attach.length > 0) throw new StatusError(1, "conflicting options: cannot specify both --attach and --detach");
      delete body.AttachStdin;
      delete body.AttachStdout;
      delete body.AttachStderr;
      delete body.StdinOnce;
    }
    if (!flags.detach && body.AttachStdin && flags.tty && !cli.isTty(0)) throw new StatusError(1, "the input device is not a TTY");
    if (flags.tty && cli.isTty(1)) {
      const { terminalSize } = await import("../terminal/tty.ts");
      const size = terminalSize(1);
      if (size) body.HostConfig!.ConsoleSize = [size.h, size.w];
    }
    const client = await cli.client();
    let id: string;
    try {
      id = await createContainer(cli, flags, parsed);
    } catch (error) {
      throw withHelp(cli, error, statusOf(error));
    }
    if (flags.detach) {
      try {
        await client.containers.start(id);
      } catch (error) {
        throw withHelp(cli, error, statusOf(error));
      }
      cli.out(`${id}\n`);
      return 0;
    }
    return attached(cli, flags, id, {
      stdin: body.AttachStdin ?? false,
      stdout: body.AttachStdout ?? false,
      stderr: body.AttachStderr ?? false,
    });
  },
});

async function attached(
  cli: Cli,
  flags: Values<typeof containerFlags> & { "detach-keys": string; "sig-proxy": boolean },
  id: string,
  attach: { stdin: boolean; stdout: boolean; stderr: boolean },
): Promise<number> {
  const client = await cli.client();
  const stop: (() => void)[] = [];
  const detachKeys = flags["detach-keys"] || cli.config.detachKeys || "";
  try {
    if (flags["sig-proxy"] && !flags.tty) stop.push(proxySignals((signal) => client.containers.kill(id, signal)));
    const any = attach.stdin || attach.stdout || attach.stderr;
    // Asked for at the same time, each on a connection of its own; both stand before the start, so that nothing is missed.
    const [stream, exited] = await Promise.all([
      any ? client.containers.attach(id, { ...attach, stream: true, detachKeys: detachKeys || undefined }) : undefined,
      client.containers.wait(id, flags.rm ? "removed" : "next-exit"),
    ]);
    let session: Session | undefined;
    if (stream) {
      session = await openSession({
        stream,
        tty: flags.tty,
        ...attach,
        detachKeys,
        out: attach.stdout ? cli.out : () => {},
        err: attach.stderr ? cli.err : () => {},
      });
      stop.push(session.close);
    }
    try {
      await client.containers.start(id);
    } catch (error) {
      session?.close();
      stream?.destroy();
      // The engine removes what could not start; the next command shall not meet it.
      if (flags.rm) await exited().catch(() => {});
      throw withHelp(cli, error, statusOf(error));
    }
    if (any && flags.tty && cli.isTty(1)) stop.push(await followSize((size) => client.containers.resize(id, size)));
    if (!session) cli.out(`${id}\n`);
    if (session && (await session.done) === "detached") return 0;
    const { StatusCode, Error: failure } = await exited();
    if (failure?.Message) {
      cli.err(`${failure.Message}\n`);
      return 125;
    }
    return StatusCode;
  } finally {
    for (const fn of stop) fn();
  }
}

/** The exit status for what kept a container from starting, as a shell would have it. */
function statusOf(error: unknown): number {
  if (error instanceof StatusError) return error.status;
  const message = messageOf(error);
  if (/executable file not found|no such file or directory|system cannot find the file specified/.test(message)) return 127;
  if (/permission denied|is a directory/.test(message)) return 126;
  return 125;
}
