// The client side of the OCI distribution specification: resolve a name, fetch and push manifests and blobs, with a registry over HTTPS (or HTTP where
// it is on this machine or declared insecure). It must never know where bytes are kept, nor what is unpacked where: it hands over verified bytes.
// A repository is opened for one reference and one user's credentials and lives as long as one pull or push; connections are kept by fetch. Everything a
// registry says is hostile: sizes are bounded, digests checked, redirects lose the credentials, silence ends.
//
//   const repository = openRepository(parseTagged("localhost:5000/busybox"), { insecure: [], mirrors: [] }, credentials);
//   const { descriptor, bytes } = await repository.manifest("latest");
//   for await (const piece of repository.stream(layer, { signal })) …          // resumed where a connection breaks
export type { Challenge, Credentials } from "./auth.ts";
export { parseChallenges } from "./auth.ts";
export { pullFailure, RegistryError } from "./errors.ts";
export { isInsecure, type RegistryConfig } from "./hosts.ts";
export { checkLogin } from "./login.ts";
export { type ProxySettings, proxiesOf } from "./proxy.ts";
export { type BlobOptions, noMatchingPlatform, openRepository, type PushOptions, type Repository } from "./repository.ts";
export { type SearchResult, searchIndex } from "./search.ts";
