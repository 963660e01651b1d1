// Endpoints of the Engine API that Jubako does not have, so that a client hears which feature is missing instead of "page not found".
const MISSING: [methods: string, pattern: RegExp, feature: string][] = [
  ["POST", /^\/build$/, "image build (POST /build)"],
  ["POST", /^\/build\/prune$/, "build cache prune"],
  ["POST", /^\/commit$/, "commit of a container to an image"],
  ["POST", /^\/(session|grpc)$/, "BuildKit session"],
  ["GET", /^\/images\/search$/, "image search"],
  ["GET", /^\/images\/.+\/attestations$/, "image attestations"],
  ["POST", /^\/images\/.+\/push$/, "image push"],
  ["GET", /^\/images\/(.+\/)?get$/, "image save"],
  ["GET", /^\/distribution\/.+\/json$/, "distribution inspect"],
  ["POST", /^\/auth$/, "registry login check"],
  ["GET", /^\/containers\/[^/]+\/attach\/ws$/, "attach over websocket"],
  ["GET", /^\/containers\/[^/]+\/export$/, "container export"],
  ["GET", /^\/containers\/[^/]+\/changes$/, "container diff"],
  ["GET|HEAD|PUT", /^\/containers\/[^/]+\/archive$/, "copy to and from containers"],
  ["GET", /^\/containers\/[^/]+\/(logs|stats|top)$/, "container logs, stats and top"],
  ["POST", /^\/containers\/[^/]+\/(exec|attach|resize)$/, "exec, attach and resize"],
  ["GET|POST", /^\/exec\/[^/]+\/(start|resize|json)$/, "exec"],
  ["GET|POST", /^\/images\/(json|create|load|prune)$/, "images"],
  ["GET|POST|DELETE", /^\/images\/.+$/, "images"],
  ["GET|POST|PUT|DELETE", /^\/volumes(\/.*)?$/, "volumes"],
  ["GET|POST|DELETE", /^\/networks(\/.*)?$/, "networks"],
  ["GET|POST|DELETE", /^\/plugins(\/.*)?$/, "plugins"],
  ["POST", /^\/swarm\/(init|join)$/, "swarm mode"],
  ["GET|POST|DELETE", /^\/(swarm|nodes|services|tasks|secrets|configs)(\/.*)?$/, "swarm mode"],
  ["GET", /^\/(info|events|system\/df)$/, "system information"],
];

/** The sentence for an endpoint that Docker has and Jubako lacks; undefined for what Docker does not have either. */
export function missingFeature(method: string, path: string): string | undefined {
  const found = MISSING.find(([methods, pattern]) => methods.split("|").includes(method) && pattern.test(path));
  return found && `Jubako does not have this feature yet: ${found[2]}`;
}
