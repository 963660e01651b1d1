import { demultiplexer } from "../../client/index.ts";
import { command, exactly } from "../command.ts";
import { bool, string } from "../flags.ts";
import { timestamp } from "../time.ts";

export default command({
  use: "[OPTIONS] CONTAINER",
  short: "Fetch the logs of a container",
  args: exactly(1),
  flags: {
    details: bool("", "Show extra details provided to logs"),
    follow: bool("f", "Follow log output"),
    since: string("", 'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'),
    tail: string("n", "Number of lines to show from the end of the logs", "all"),
    timestamps: bool("t", "Show timestamps"),
    until: string("", 'Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'),
  },
  async run(cli, flags, args) {
    const client = await cli.client();
    const container = await client.containers.inspect(args[0]!);
    const response = await client.containers.logs(container.Id ?? args[0]!, {
      stdout: true,
      stderr: true,
      since: flags.since && timestamp(flags.since, 'invalid value for "since"'),
      until: flags.until && timestamp(flags.until, 'invalid value for "until"'),
      timestamps: flags.timestamps,
      follow: flags.follow,
      tail: flags.tail,
      details: flags.details,
    });
    if (container.Config?.Tty) {
      for await (const chunk of response.body) cli.out(chunk);
      return 0;
    }
    const write = demultiplexer((stream, piece) => (stream === 1 ? cli.out(piece) : cli.err(piece)));
    for await (const chunk of response.body) write(chunk);
    return 0;
  },
});
