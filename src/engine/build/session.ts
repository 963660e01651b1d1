// POST /build?version=2: how docker CLIs of 18.09 to 20.10 build with BuildKit. The request names a session that the client has opened (POST /session); the answer is
// lines of JSON whose `aux` is what BuildKit's Status says, as base64 of its message.
import { create, toBinary } from "@bufbuild/protobuf";
import { type SolveRequest, SolveRequestSchema, StatusResponseSchema } from "../../gen/moby/buildkit/v1_pb.ts";
import { invalidArgument, messageOf } from "../../lib/errors.ts";
import { formatReference, parseReference, withDefaultTag } from "../../oci/index.ts";
import { sentenceOf } from "../buildkit/errors.ts";
import type { BuildKit } from "../buildkit/index.ts";
import { solve } from "../buildkit/solve.ts";
import { streamed } from "../images/progress.ts";
import { type Answer, type Call, flag } from "../route.ts";
import { isList, isObject, json } from "./query.ts";

/** What the query means in BuildKit's words. */
function requestOf(query: URLSearchParams): SolveRequest {
  const attrs: Record<string, string> = {};
  const given = (name: string, attr: string) => {
    const value = query.get(name);
    if (value) attrs[attr] = value;
  };
  const remote = query.get("remote") ?? "";
  if (remote === "upload-request") attrs.context = `http://buildkit-session/upload-request/${query.get("buildid") ?? ""}`;
  else if (remote !== "" && remote !== "client-session") attrs.context = remote;
  given("target", "target");
  given("dockerfile", "filename");
  given("platform", "platform");
  given("cgroupparent", "cgroup-parent");
  given("shmsize", "shm-size");
  for (const [name, value] of Object.entries(json(query, "buildargs", isObject) ?? {}))
    if (typeof value === "string") attrs[`build-arg:${name}`] = value;
  for (const [name, value] of Object.entries(json(query, "labels", isObject) ?? {})) attrs[`label:${name}`] = String(value ?? "");
  if (flag(query, "nocache")) attrs["no-cache"] = "";
  attrs["image-resolve-mode"] = flag(query, "pull") ? "pull" : "default";
  const network = query.get("networkmode") ?? "";
  if (network === "host" || network === "none") attrs["force-network-mode"] = network;
  else if (network !== "" && network !== "default")
    throw invalidArgument(`network mode ${JSON.stringify(network)} not supported by buildkit`);
  const hosts = query.getAll("extrahosts").flatMap((text) => text.split(","));
  if (hosts.some(Boolean))
    attrs["add-hosts"] = hosts
      .filter(Boolean)
      .map((host) => host.replace(":", "="))
      .join(",");
  const caches = (json(query, "cachefrom", isList) ?? []).filter((each): each is string => typeof each === "string");
  const names = query.getAll("t").filter(Boolean);
  const outputs = (json(query, "outputs", isList) ?? []).filter(isObject);
  if (outputs.length > 1) throw invalidArgument("multiple outputs not supported");
  const [output] = outputs;
  const type = String(output?.Type ?? "moby");
  const outputAttrs = Object.fromEntries(
    Object.entries(isObject(output?.Attrs) ? output.Attrs : {}).map(([key, value]) => [key, String(value)]),
  );
  const name = names.map((each) => formatReference(withDefaultTag(parseReference(each)))).join(",");
  return create(SolveRequestSchema, {
    Ref: query.get("buildid") ?? "",
    Session: query.get("session") ?? "",
    Frontend: "dockerfile.v0",
    FrontendAttrs: attrs,
    Exporters: type === "cacheonly" ? [] : [{ Type: type, Attrs: { ...outputAttrs, ...(name ? { name } : {}) } }],
    Cache: {
      Imports: caches.map((ref) => ({ Type: "registry", Attrs: { ref } })),
      Exports: attrs["build-arg:BUILDKIT_INLINE_CACHE"] === "1" ? [{ Type: "inline" }] : [],
    },
    ...(network === "host" ? { Entitlements: ["network.host"] } : {}),
  });
}

export async function buildBySession(kit: BuildKit, call: Call): Promise<Answer> {
  const upload = /^upload-request:([\w.-]{1,128})$/.exec(call.query.get("buildid") ?? "");
  if (upload) {
    await kit.uploads.offer(upload[1]!, call.body);
    return { status: 200 };
  }
  const request = requestOf(call.query);
  const stream = await streamed(async (sink, signal) => {
    const over = new AbortController();
    const telling = (async () => {
      const progress = await kit.builds.progress(request.Ref, AbortSignal.any([signal, over.signal]));
      for await (const update of progress.follow(signal)) {
        const aux = Buffer.from(toBinary(StatusResponseSchema, create(StatusResponseSchema, update))).toString("base64");
        sink.line({ id: "moby.buildkit.trace", aux });
      }
    })().catch(() => {});
    try {
      const answer = await solve(kit, request, signal);
      await telling;
      const id = answer["containerimage.config.digest"] ?? answer["containerimage.digest"];
      if (id !== undefined) sink.line({ id: "moby.image.id", aux: { ID: id } });
      if (id !== undefined && flag(call.query, "q")) sink.line({ stream: `${id}\n` });
    } catch (error) {
      over.abort();
      await telling;
      const message = sentenceOf(messageOf(error));
      sink.line({ errorDetail: { message }, error: message });
    }
  }, call.signal);
  return { type: "application/json", stream };
}
