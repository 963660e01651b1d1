// A client that speaks HTTP to a port that serves TLS hears so, as from Go's servers (net/http), instead of a connection that just ends.
import { writeSync } from "node:fs";
import type { Server } from "node:tls";

const ANSWER = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

interface Refused {
  /** Undefined where the connection is gone. */
  remotePort?: number | undefined;
  _handle?: { fd?: number } | null;
}

export function answerPlainHttp(server: Pick<Server, "on">): void {
  server.on("tlsClientError", (error: Error & { code?: string }, socket) => {
    const { remotePort, _handle } = socket as unknown as Refused;
    if (error.code !== "ERR_SSL_HTTP_REQUEST" || remotePort === undefined || !_handle?.fd || _handle.fd < 0) return;
    try {
      // The stream is closed for us already, the connection behind it is not until this event is over: what it sends is not encrypted any more.
      writeSync(_handle.fd, ANSWER);
    } catch {
      // it left
    }
  });
}
