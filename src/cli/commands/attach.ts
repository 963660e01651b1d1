import { type Cli, command, exactly, StatusError } from "../command.ts";
import { bool, string } from "../flags.ts";
import { followSize, openSession, proxySignals } from "../terminal/session.ts";

export default command({
  use: "[OPTIONS] CONTAINER",
  short: "Attach local standard input, output, and error streams to a running container",
  args: exactly(1),
  flags: {
    "detach-keys": string("", "Override the key sequence for detaching a container"),
    "no-stdin": bool("", "Do not attach STDIN"),
    "sig-proxy": bool("", "Proxy all received signals to the process", true),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const container = await client.containers.inspect(args[0]!);
    if (!container.State?.Running) throw new StatusError(1, "You cannot attach to a stopped container, start it first");
    if (container.State.Paused) throw new StatusError(1, "You cannot attach to a paused container, unpause it first");
    if (container.State.Restarting) throw new StatusError(1, "You cannot attach to a restarting container, wait until it is running");
    const tty = container.Config?.Tty ?? false;
    const stdin = !flags["no-stdin"] && (container.Config?.OpenStdin ?? false);
    if (stdin && tty && !cli.isTty(0)) throw new StatusError(1, "the input device is not a TTY");
    const detachKeys = flags["detach-keys"] || cli.config.detachKeys || "";
    return followContainer(cli, container.Id ?? args[0]!, { tty, stdin, detachKeys, sigProxy: flags["sig-proxy"] });
  },
});

/** Attaches to a running container until its output ends, then answers its exit status. */
async function followContainer(
  cli: Cli,
  id: string,
  options: { tty: boolean; stdin: boolean; detachKeys: string; sigProxy: boolean },
): Promise<number> {
  const client = await cli.client();
  const stop: (() => void)[] = [];
  const { tty, stdin, detachKeys } = options;
  try {
    if (options.sigProxy && !tty) stop.push(proxySignals((signal) => client.containers.kill(id, signal)));
    const [exited, stream] = await Promise.all([
      client.containers.wait(id),
      client.containers.attach(id, { stream: true, stdin, stdout: true, stderr: true, detachKeys: detachKeys || undefined }),
    ]);
    const session = await openSession({ stream, tty, stdin, stdout: true, stderr: true, detachKeys, out: cli.out, err: cli.err });
    stop.push(session.close);
    if (tty && cli.isTty(1)) {
      const { terminalSize } = await import("../terminal/tty.ts");
      const size = terminalSize(1);
      // A size that changes makes the program in the container draw its screen again, also where ours is what it already has.
      if (size) await client.containers.resize(id, { h: size.h + 1, w: size.w + 1 }).catch(() => {});
      stop.push(await followSize((now) => client.containers.resize(id, now)));
    }
    if ((await session.done) === "detached") throw new StatusError(1, "read escape sequence");
    const { StatusCode, Error: failure } = await exited();
    if (failure?.Message) throw new Error(failure.Message);
    return StatusCode;
  } finally {
    for (const fn of stop) fn();
  }
}
