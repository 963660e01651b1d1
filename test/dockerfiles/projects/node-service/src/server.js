const { createServer } = require("node:http");
const { greet } = require("greeter");

const server = createServer((request, response) => {
  if (request.url === "/healthz") return response.end("ok\n");
  response.end(
    `${greet(new URL(request.url, "http://x").searchParams.get("who") ?? "world")} from ${process.env.NODE_ENV}, ${process.getuid()}\n`,
  );
});
server.listen(Number(process.env.PORT));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
