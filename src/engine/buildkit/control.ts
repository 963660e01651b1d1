// Control, BuildKit's service towards its clients: builds, their progress, sessions, the cache, history.
import type { Control, UsageRecord } from "../../gen/moby/buildkit/v1_pb.ts";
import type { Source } from "../../gen/pb_pb.ts";
import { isKind } from "../../lib/errors.ts";
import type { CallContext, Service } from "../../lib/grpc/services.ts";
import { toConnectError } from "./errors.ts";
import type { BuildKit } from "./index.ts";
import { sessionHeaders } from "./sessions.ts";
import { solve } from "./solve.ts";
import { createTunnel } from "./tunnel.ts";
import { pruneUsage, usageRecords } from "./usage.ts";
import { BUILDKIT, workerRecord } from "./worker.ts";

async function answered<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toConnectError(error, (error as { sources?: Source[] }).sources);
  }
}

async function* streamed<T>(context: CallContext, work: () => AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* work();
  } catch (error) {
    if (!context.signal.aborted) throw toConnectError(error);
  }
}

export function controlService(kit: BuildKit): Service<typeof Control> {
  return {
    info: async () => ({ buildkitVersion: BUILDKIT }),
    listWorkers: async () => ({ record: [workerRecord(kit.engine)] }),
    solve: (request, context) => answered(async () => ({ ExporterResponse: await solve(kit, request, context.signal) })),
    status: (request, context) =>
      streamed(context, async function* () {
        const { signal } = context;
        const earlier = kit.history.progress(request.Ref);
        const progress = earlier ?? (await kit.builds.progress(request.Ref, signal));
        yield* progress.follow(signal);
      }),
    session: (messages, context) =>
      streamed(context, async function* () {
        const tunnel = createTunnel();
        const session = kit.sessions.open(
          sessionHeaders((name) => context.list(name).join(",") || undefined),
          () => tunnel.stream,
        );
        const end = () => session.close();
        context.signal.addEventListener("abort", end, { once: true });
        try {
          void tunnel.feed(messages).then(end);
          yield* tunnel.messages;
        } finally {
          end();
        }
      }),
    diskUsage: (request) => answered(async () => ({ record: await usageRecords(kit, request.filter) })),
    prune: (request, context) =>
      streamed(context, async function* () {
        for (const record of await pruneUsage(kit, request)) yield record as UsageRecord;
      }),
    listenBuildHistory: (request, context) => streamed(context, () => kit.history.listen(request, context.signal)),
    updateBuildHistory: (request) =>
      answered(async () => {
        try {
          kit.history.update(request.Ref, { pinned: request.Pinned, remove: request.Delete, finalize: request.Finalize });
        } catch (error) {
          // Finalizing what another engine built, or what was forgotten, changes nothing.
          if (!request.Finalize || !isKind(error, "NotFound")) throw error;
        }
        return {};
      }),
  };
}
