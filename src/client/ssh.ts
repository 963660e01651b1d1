// ssh://[user@]host[:port]: the engine behind ssh, spoken to through `docker system dial-stdio` on the other machine, as docker's own CLI does.
import { spawn } from "node:child_process";
import { Duplex } from "node:stream";
import { unavailable } from "../lib/errors.ts";

export interface SshEndpoint {
  kind: "ssh";
  user: string | undefined;
  host: string;
  port: number | undefined;
  path: string | undefined;
}

/** The command line of the ssh program. */
export function sshArguments(endpoint: SshEndpoint): string[] {
  const args = ["-o", "ConnectTimeout=30", "-T"];
  if (endpoint.user) args.push("-l", endpoint.user);
  if (endpoint.port) args.push("-p", String(endpoint.port));
  const remote = endpoint.path
    ? ["docker", "--host", `unix://${endpoint.path}`, "system", "dial-stdio"]
    : ["docker", "system", "dial-stdio"];
  return [...args, "--", endpoint.host, ...remote];
}

export function sshStream(endpoint: SshEndpoint): Duplex {
  const child = spawn("ssh", sshArguments(endpoint), { stdio: ["pipe", "pipe", "pipe"] });
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-4096);
  });
  const stream = Duplex.from({ readable: child.stdout, writable: child.stdin });
  child.on("error", (error) => stream.destroy(unavailable(`ssh to ${endpoint.host}: ${error.message}`, error)));
  child.on("exit", (code) => {
    if (code) stream.destroy(unavailable(`ssh to ${endpoint.host} ended with status ${code}: ${complaint.trim()}`));
  });
  stream.on("close", () => void child.kill());
  return stream;
}
