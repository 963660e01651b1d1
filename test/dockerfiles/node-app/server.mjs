import { createServer, get } from "node:http";
import { greet } from "greeter";

const server = createServer((_, answer) => answer.end(greet(process.env.NODE_ENV)));
server.listen(3000, "127.0.0.1", () => {
  if (!process.argv.includes("--once")) return;
  get("http://127.0.0.1:3000", (answer) => {
    answer.setEncoding("utf8");
    answer.on("data", (text) => {
      console.log(text, process.getuid());
      server.close();
      server.closeAllConnections();
    });
  });
});
