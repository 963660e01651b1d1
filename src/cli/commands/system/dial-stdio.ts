import { command, none } from "../../command.ts";

// What `ssh HOST docker system dial-stdio` runs on the other machine: standard streams to and from the engine's socket.
export default command({
  use: "",
  short: "Proxy the stdio stream to the daemon connection",
  args: none,
  flags: {},
  async run(cli) {
    const client = await cli.client();
    const { connectTo } = await import("../../../client/index.ts");
    const { readInput } = await import("../../terminal/input.ts");
    const connection = await connectTo(client.target.endpoint);
    await new Promise<void>((resolve, reject) => {
      const input = readInput(
        0,
        (chunk) => {
          if (connection.write(chunk)) return;
          input.pause();
          void connection.drained().then(() => input.resume());
        },
        () => connection.endWrites(),
      );
      connection.onData = (chunk) => cli.out(chunk);
      connection.onEnd = (error) => {
        input.close();
        connection.destroy();
        if (error) reject(error);
        else resolve();
      };
    });
  },
});
