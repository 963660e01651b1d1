import { atLeast, command, StatusError } from "../command.ts";
import { environmentOf, readKeyValueFile } from "../container/values.ts";
import { bool, list, string } from "../flags.ts";
import { followSize, openSession } from "../terminal/session.ts";

export default command({
  use: "[OPTIONS] CONTAINER COMMAND [ARG...]",
  short: "Execute a command in a running container",
  args: atLeast(2),
  flags: {
    detach: bool("d", "Detached mode: run command in the background"),
    "detach-keys": string("", "Override the key sequence for detaching a container"),
    env: list("e", "Set environment variables", environmentOf(process.env)),
    "env-file": list("", "Read in a file of environment variables"),
    interactive: bool("i", "Keep STDIN open even if not attached"),
    privileged: bool("", "Give extended privileges to the command"),
    tty: bool("t", "Allocate a pseudo-TTY"),
    user: string("u", "Username or UID (format: <name|uid>[:<group|gid>])"),
    workdir: string("w", "Working directory inside the container"),
  },
  interspersed: false,
  async run(cli, flags, args) {
    const [container, ...cmd] = args as [string, ...string[]];
    const variables = [...flags["env-file"].flatMap((path) => readKeyValueFile(path, (name) => cli.env[name])), ...flags.env];
    const client = await cli.client();
    const detachKeys = flags["detach-keys"] || cli.config.detachKeys || "";
    if (!flags.detach && flags.interactive && flags.tty && !cli.isTty(0)) {
      // A container that is not there is the more useful thing to say.
      await client.containers.inspect(container);
      throw new StatusError(1, "the input device is not a TTY");
    }
    let size: [number, number] | undefined;
    if (flags.tty && cli.isTty(1)) {
      const { terminalSize } = await import("../terminal/tty.ts");
      const now = terminalSize(1);
      if (now) size = [now.h, now.w];
    }
    const { Id } = await client.exec.create(container, {
      AttachStdin: flags.interactive && !flags.detach,
      AttachStdout: !flags.detach,
      AttachStderr: !flags.detach,
      DetachKeys: detachKeys,
      Tty: flags.tty,
      Env: variables.length > 0 ? variables : undefined,
      Cmd: cmd,
      Privileged: flags.privileged,
      User: flags.user,
      WorkingDir: flags.workdir,
      ConsoleSize: size,
    });
    if (flags.detach) {
      await client.exec.start(Id, { Detach: true, Tty: flags.tty });
      return 0;
    }
    const stop: (() => void)[] = [];
    try {
      const stream = await client.exec.attach(Id, { Tty: flags.tty, ConsoleSize: size });
      const session = await openSession({
        stream,
        tty: flags.tty,
        stdin: flags.interactive,
        stdout: true,
        stderr: true,
        detachKeys,
        out: cli.out,
        err: cli.err,
      });
      stop.push(session.close);
      if (flags.tty && cli.isTty(0)) stop.push(await followSize((now) => client.exec.resize(Id, now)));
      if ((await session.done) === "detached") throw new StatusError(1, "read escape sequence");
      return (await client.exec.inspect(Id)).ExitCode ?? 0;
    } finally {
      for (const fn of stop) fn();
    }
  },
});
