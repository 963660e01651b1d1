import { atLeast, type Cli, command, StatusError } from "../command.ts";
import { bool, string } from "../flags.ts";
import { daemonMessage } from "../index.ts";
import { followSize, openSession, proxySignals, type Session } from "../terminal/session.ts";

export default command({
  use: "[OPTIONS] CONTAINER [CONTAINER...]",
  short: "Start one or more stopped containers",
  args: atLeast(1),
  flags: {
    attach: bool("a", "Attach STDOUT/STDERR and forward signals"),
    checkpoint: string("", "Restore from this checkpoint"),
    "checkpoint-dir": string("", "Use a custom checkpoint storage directory"),
    "detach-keys": string("", "Override the key sequence for detaching a container"),
    interactive: bool("i", "Attach container's STDIN"),
  },
  async run(cli, flags, args) {
    const detachKeys = flags["detach-keys"] || cli.config.detachKeys || "";
    if (flags.attach || flags.interactive) {
      if (args.length > 1) throw new Error("you cannot start and attach multiple containers at once");
      return attached(cli, args[0]!, flags.interactive, detachKeys);
    }
    const client = await cli.client();
    if (flags.checkpoint !== "") {
      if (args.length > 1) throw new Error("you cannot restore multiple containers at once");
      await client.containers.start(args[0]!, { checkpoint: flags.checkpoint, "checkpoint-dir": flags["checkpoint-dir"] || undefined });
      return 0;
    }
    const failed: string[] = [];
    for (const name of args) {
      try {
        await client.containers.start(name);
        cli.out(`${name}\n`);
      } catch (error) {
        cli.err(`${daemonMessage(error)}\n`);
        failed.push(name);
      }
    }
    if (failed.length > 0) throw new StatusError(1, `Error: failed to start containers: ${failed.join(", ")}`);
    return 0;
  },
});

async function attached(cli: Cli, name: string, interactive: boolean, detachKeys: string): Promise<number> {
  const client = await cli.client();
  const container = await client.containers.inspect(name);
  const id = container.Id ?? name;
  const tty = container.Config?.Tty ?? false;
  const stdin = interactive && (container.Config?.OpenStdin ?? false);
  const stop: (() => void)[] = [];
  try {
    if (!tty) stop.push(proxySignals((signal) => client.containers.kill(id, signal)));
    const [stream, exited] = await Promise.all([
      client.containers.attach(id, { stream: true, stdin, stdout: true, stderr: true, detachKeys: detachKeys || undefined }),
      client.containers.wait(id, container.HostConfig?.AutoRemove ? "removed" : "next-exit"),
    ]);
    const session: Session = await openSession({ stream, tty, stdin, stdout: true, stderr: true, detachKeys, out: cli.out, err: cli.err });
    stop.push(session.close);
    try {
      await client.containers.start(id);
    } catch (error) {
      session.close();
      stream.destroy();
      if (container.HostConfig?.AutoRemove) await exited().catch(() => {});
      throw error;
    }
    if (tty && cli.isTty(1)) stop.push(await followSize((size) => client.containers.resize(id, size)));
    if ((await session.done) === "detached") return 0;
    return (await exited()).StatusCode;
  } finally {
    for (const fn of stop) fn();
  }
}
