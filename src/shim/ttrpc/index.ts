// ttrpc: the protocol between a manager and its shims (and, the other way, for their events). Unary calls only.
//
//   const server = createServer(); serveTtrpc(server, Task, implementation); server.listen(path);
//   const task = createTtrpcClient(Task, "unix:///run/…"); await task.state({ id });
export { type Connection, connectTtrpc, createTtrpcClient, socketPath } from "./client.ts";
export { type Services, serveTtrpc, ttrpcServices } from "./server.ts";
export type { CallContext, CallOptions, Calls, Client, Implementation, Service } from "./service.ts";
