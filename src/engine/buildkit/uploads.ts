// Contexts that came as the body of a request of their own (docker CLIs up to 20.10, `docker build -`): the build that follows takes it under the id that both name.
import type { Readable } from "node:stream";
import { notFound, resourceExhausted } from "../../lib/errors.ts";

const WAIT_MS = 5000;
const MAX_WAITING = 64;

export interface Uploads {
  /** Offers a body; resolves when it was read, or nobody wanted it. NotFound then. */
  offer(id: string, body: Readable): Promise<void>;
  /** Takes what is offered, awaited for a while. NotFound. */
  take(id: string): Promise<Readable>;
}

export function createUploads(): Uploads {
  const offered = new Map<string, { body: Readable; taken: () => void }>();
  const wanted = new Map<string, (body: Readable) => void>();
  const late = (id: string, forget: () => void) =>
    new Promise<never>((_, reject) => {
      setTimeout(() => {
        forget();
        reject(notFound(`no build context was sent for ${id}`));
      }, WAIT_MS).unref();
    });
  const read = (body: Readable) =>
    new Promise<void>((resolve) =>
      body
        .once("close", resolve)
        .once("end", resolve)
        .once("error", () => resolve()),
    );
  return {
    async offer(id, body) {
      if (offered.size >= MAX_WAITING) throw resourceExhausted("too many build contexts wait for their builds");
      const done = read(body);
      const waiting = wanted.get(id);
      if (waiting) {
        wanted.delete(id);
        waiting(body);
      } else {
        const taken = new Promise<void>((resolve) => offered.set(id, { body, taken: resolve }));
        await Promise.race([taken, done, late(id, () => offered.delete(id))]);
      }
      await done;
    },
    async take(id) {
      const there = offered.get(id);
      if (there) {
        offered.delete(id);
        there.taken();
        return there.body;
      }
      if (wanted.size >= MAX_WAITING) throw resourceExhausted("too many builds wait for their contexts");
      const coming = new Promise<Readable>((resolve) => wanted.set(id, resolve));
      return Promise.race([coming, late(id, () => wanted.delete(id))]);
    },
  };
}
