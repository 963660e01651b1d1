// The Task service over Debian's runc: real containers, no fakes.
import { afterAll, describe, expect, test } from "bun:test";
import { BUSYBOX, bundle, fifo, place, RUNC, reader } from "./harness.ts";
import { connectShim, type Shim, serveShim, type TaskClient } from "./index.ts";

describe.skipIf(!BUSYBOX || !RUNC)("tasks over runc", () => {
  const here = place("runc");
  let shim: Shim;
  let client: TaskClient;
  process.env.JUBAKO_SHIM_RUNTIME = RUNC;
  afterAll(async () => {
    client?.close();
    await shim?.close();
    here.remove();
  });

  test("create, start, wait, delete", async () => {
    shim = await serveShim({ namespace: "test", state: `${here.dir}/state`, listen: `${here.dir}/sock` });
    client = connectShim(`unix://${here.dir}/sock`);
    const stdout = fifo(`${here.dir}/a.out`);
    const out = reader(stdout);
    const id = "a";
    const { pid } = await client.create({ id, bundle: bundle(here, id, ["sh", "-c", "echo hello; exit 7"]), stdout });
    expect(pid).toBeGreaterThan(1);
    expect((await client.state({ id })).status).toBe(1);
    const wait = client.wait({ id });
    expect((await client.start({ id })).pid).toBe(pid);
    const exit = await wait;
    expect(exit.exitStatus).toBe(7);
    await out.until("hello\n");
    expect((await client.state({ id })).status).toBe(3);
    expect((await client.delete({ id })).exitStatus).toBe(7);
    expect(await out.end).toBe("hello\n");
    expect((await client.state({ id }).catch((e) => e)).message).toBe("container not created: not found");
  });

  test("kill", async () => {
    const id = "b";
    await client.create({ id, bundle: bundle(here, id, ["sleep", "100"]) });
    await client.start({ id });
    const wait = client.wait({ id });
    expect((await client.delete({ id }).catch((e) => e)).kind).toBe("FailedPrecondition");
    await client.kill({ id, signal: 9 });
    expect((await wait).exitStatus).toBe(137);
    expect((await client.kill({ id, signal: 9 }).catch((e) => e)).message).toBe("process already finished: not found");
    await client.delete({ id });
  });
});
