// What clients offer to builds: a session is a connection on which the client serves (its files, secrets, credentials, an ssh agent) and we call. A client opens one,
// by POST /session or through Control.Session, and names it by an id; its builds then name that id. The id is a secret of 25 letters that only its client knows.
import type { Duplex } from "node:stream";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { Health } from "../../gen/grpc/health/v1_pb.ts";
import { alreadyExists, invalidArgument, notFound, resourceExhausted } from "../../lib/errors.ts";
import { type BulkCall, openCall } from "../../lib/grpc/calls.ts";
import type { Fields } from "../../lib/http2/index.ts";
import { clientConnection } from "./connection.ts";

const MAX_SESSIONS = 4096;
/** How long a build waits for the session that it names. */
const WAIT_MS = 10_000;
const HEALTH_MS = 5000;
const HEALTH_TIMEOUT_MS = 30_000;

export interface Session {
  id: string;
  name: string;
  /** The same for each session of one client and directory; "" where the client has none. */
  sharedKey: string;
  /** By path: "/moby.filesync.v1.FileSync/DiffCopy". */
  supports(method: string): boolean;
  client<S extends DescService>(service: S): Client<S>;
  /** A call of many small messages. */
  bulk(method: string, metadata: Fields, signal: AbortSignal): BulkCall;
  /** Aborts when the client is gone. */
  closed: AbortSignal;
  close(): void;
}

export interface SessionHeaders {
  id: string | undefined;
  name: string | undefined;
  sharedKey: string | undefined;
  methods: string | undefined;
}

export interface Sessions {
  /** Begins a session. AlreadyExists where the id is taken. */
  open(headers: SessionHeaders, connect: () => Duplex): Session;
  /** The session of this id, awaited for a while. NotFound. */
  get(id: string, signal: AbortSignal): Promise<Session>;
  close(): void;
}

/** The headers of a session as they come by HTTP or as gRPC metadata. */
export function sessionHeaders(header: (name: string) => string | null | undefined): SessionHeaders {
  const text = (name: string) => header(`x-docker-expose-session-${name}`) ?? undefined;
  return { id: text("uuid"), name: text("name"), sharedKey: text("sharedkey"), methods: text("grpc-method") };
}

export function createSessions(): Sessions {
  const sessions = new Map<string, Session>();
  const waiting = new Map<string, Set<(session: Session) => void>>();
  return {
    open(headers, connect) {
      const { id = "", name = "", sharedKey = "" } = headers;
      if (!/^[\w.:-]{1,128}$/.test(id)) throw invalidArgument("a session needs an id");
      if (sharedKey.length > 1024) throw invalidArgument("the shared key of a session is too long");
      if (sessions.has(id)) throw alreadyExists(`session ${id} already exists`);
      if (sessions.size >= MAX_SESSIONS) throw resourceExhausted("too many sessions");
      const methods = new Set((headers.methods ?? "").split(",").map((method) => method.trim().toLowerCase()));
      const { transport, connection, closed, close } = clientConnection(connect());
      const health = createClient(Health, transport);
      let failures = 0;
      // A connection whose other end lost its power says nothing.
      const timer = setInterval(() => {
        health.check({}, { timeoutMs: HEALTH_TIMEOUT_MS }).then(
          () => {
            failures = 0;
          },
          () => {
            if (++failures > 1) close();
          },
        );
      }, HEALTH_MS);
      timer.unref();
      closed.addEventListener("abort", () => {
        clearInterval(timer);
        sessions.delete(id);
      });
      const session: Session = {
        id,
        name,
        sharedKey,
        supports: (method) => methods.has(method.toLowerCase()),
        client: (service) => createClient(service, transport),
        bulk: (method, metadata, signal) => openCall(connection, method, metadata, AbortSignal.any([signal, closed])),
        closed,
        close,
      };
      sessions.set(id, session);
      for (const found of waiting.get(id) ?? []) found(session);
      waiting.delete(id);
      return session;
    },
    async get(id, signal) {
      // buildx puts a node's name before the id of a session that several builds share.
      const bare = id.slice(id.indexOf(":") + 1) || id;
      const there = sessions.get(bare);
      if (there) return there;
      const patience = AbortSignal.any([signal, AbortSignal.timeout(WAIT_MS)]);
      return new Promise<Session>((resolve, reject) => {
        const set = waiting.get(bare) ?? new Set();
        waiting.set(bare, set);
        const done = (session: Session) => {
          patience.removeEventListener("abort", give);
          resolve(session);
        };
        const give = () => {
          set.delete(done);
          if (set.size === 0 && waiting.get(bare) === set) waiting.delete(bare);
          reject(notFound(`no active session for ${bare}`));
        };
        set.add(done);
        if (patience.aborted) give();
        else patience.addEventListener("abort", give, { once: true });
      });
    },
    close() {
      for (const session of sessions.values()) session.close();
    },
  };
}
