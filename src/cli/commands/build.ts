import { any, command, StatusError } from "../command.ts";
import { list } from "../flags.ts";

// The flags are not looked at: whatever was asked for, the answer is the same.
export default command({
  use: "[OPTIONS] PATH | URL | -",
  short: "Build an image from a Dockerfile",
  args: any,
  flags: {
    tag: list("t", 'Name and optionally a tag (format: "name:tag")'),
    file: list("f", 'Name of the Dockerfile (Default is "PATH/Dockerfile")'),
  },
  interspersed: false,
  async run(cli) {
    throw new StatusError(1, `${cli.name}: '${cli.path}' is not there yet; DOCKER_BUILDKIT=0 docker build uses the engine's builder`);
  },
});
