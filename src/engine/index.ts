// The engine (jubakod): containers, images, networks and volumes as people mean them, over the Docker Engine API.
//
// It must never know how a container is made (that is the manager's, and below it the shim's and the runtime's), nor how a layer is stored.
// At its door: HTTP/1.1 on unix, tcp with TLS, or inherited descriptors; the Engine API 1.24 … 1.56. Below it: the manager through containerd's
// v1 services only (`Manager` in context.ts), in memory or on a unix socket.
//
// Nouns: a *resource* (containers, images, networks, volumes, exec, events, …) is a folder with its face and its routes; resources reach each other
// through the faces in context.ts. A *record* is a container as the engine keeps it: created → running (⇄ paused) → exited → removed.
//
//   const { engine, routes, recover, shutdown } = await createEngine(config);
//   await recover();                          // containers that outlived the last engine are found again, half-done work is undone
//   const serve = createServer({ routes, … });
//   await listen("unix:///run/jubako/docker.sock", config, serve);
//   …
//   await shutdown();                         // stops the containers unless live-restore is set
export { createEngine } from "./compose.ts";
export { type DaemonOptions, parseOptions } from "./config.ts";
export type { Engine, EngineConfig } from "./context.ts";
export { main } from "./main.ts";
export { API_VERSION, MIN_API_VERSION, VERSION } from "./version.ts";
