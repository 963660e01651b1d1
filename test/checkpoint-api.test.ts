// What the engine answers about checkpoints, as dockerd 20.10 does in experimental mode and without it. That containers go on where they were is tested in
// virtual machines (test/vm/checkpoint-layers.test.ts): CRIU does not know every kernel.
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { lacks, startEngine, type TestEngine } from "./support/engine.ts";

function caller(engine: TestEngine) {
  return async (method: string, path: string, body?: unknown) => {
    const response = await fetch(`http://engine/v1.50${path}`, {
      method,
      unix: `${engine.dir}/docker.sock`,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
    } as RequestInit);
    const text = await response.text();
    return {
      status: response.status,
      answer: text === "" ? undefined : JSON.parse(text),
      experimental: response.headers.get("docker-experimental"),
    };
  };
}

describe.skipIf(lacks("docker"))("checkpoints", () => {
  test("without --experimental they are refused as the feature they are", async () => {
    await using engine = await startEngine({ image: false });
    const call = caller(engine);
    const refused = { status: 501, answer: { message: expect.stringContaining("This experimental feature is disabled by default") } };
    expect(await call("GET", "/containers/none/checkpoints")).toMatchObject({ ...refused, experimental: "false" });
    expect(await call("POST", "/containers/none/checkpoints", { CheckpointID: "cp" })).toMatchObject(refused);
    expect(engine.docker("checkpoint", "ls", "none").stderr).toContain("experimental");
  });

  test("with it: names, directories and states, in both command lines", async () => {
    await using engine = await startEngine({ flags: ["--experimental"] });
    const call = caller(engine);
    const says = (status: number, message: string) => ({ status, answer: { message } });
    engine.docker("run", "-d", "--name", "c1", "--network", "none", "busybox", "sleep", "1000");
    engine.docker("create", "--name", "c2", "--network", "none", "busybox", "true");
    const id = engine.docker("inspect", "-f", "{{.Id}}", "c2").stdout.trim();
    expect(engine.docker("info", "-f", "{{.ExperimentalBuild}}").stdout).toBe("true\n");
    expect(engine.docker("version", "-f", "{{.Server.Experimental}}").stdout).toBe("true\n");

    expect(await call("GET", "/containers/c1/checkpoints")).toEqual({ status: 200, answer: null, experimental: "true" });
    expect(await call("GET", "/containers/none/checkpoints")).toMatchObject(says(404, "No such container: none"));
    const create = (name: string, body: object) => call("POST", `/containers/${name}/checkpoints`, body);
    expect(await create("c2", { CheckpointID: "cp" })).toMatchObject(says(409, `container ${id} is not running`));
    const invalid = "Invalid checkpoint ID (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
    expect(await create("c1", { CheckpointID: "a/b" })).toMatchObject(says(400, invalid));
    expect(await call("DELETE", "/containers/c1/checkpoints/none")).toMatchObject(
      says(500, "checkpoint none does not exist for container c1"),
    );
    expect(await call("POST", "/containers/c2/start?checkpoint=none")).toMatchObject(
      says(500, "checkpoint none does not exist for container /c2"),
    );
    expect((await call("POST", "/containers/c1/start?checkpoint=none")).status).toBe(304);

    const elsewhere = `${engine.dir}/checkpoints`;
    mkdirSync(`${elsewhere}/one`, { recursive: true });
    writeFileSync(`${elsewhere}/file`, "");
    expect((await call("GET", `/containers/c1/checkpoints?dir=${elsewhere}`)).answer).toEqual([{ Name: "one" }]);
    expect(await call("DELETE", `/containers/c1/checkpoints/file?dir=${elsewhere}`)).toMatchObject(
      says(500, `${elsewhere}/file exists and is not a directory`),
    );
    for (const cli of [engine.docker, engine.jubako]) {
      expect(cli("checkpoint", "ls", "c1", "--checkpoint-dir", elsewhere)).toEqual({
        status: 0,
        stdout: "CHECKPOINT NAME\none\n",
        stderr: "",
      });
      expect(cli("checkpoint", "rm", "c1", "none").stderr).toContain("checkpoint none does not exist for container c1");
      expect(cli("checkpoint", "create", "c1", "a/b").stderr).toContain(invalid);
      expect(cli("start", "--checkpoint", "none", "c2").stderr).toContain("checkpoint none does not exist for container /c2");
    }
    // One without images is no checkpoint; the container can be started anew afterwards.
    expect(engine.jubako("start", "--checkpoint", "one", "--checkpoint-dir", elsewhere, "c2").stderr).toMatch(
      /OCI runtime restore failed: .*no descriptors.json/,
    );
    expect(engine.docker("start", "-a", "c2").status).toBe(0);
    expect(engine.jubako("checkpoint", "rm", "c1", "one", "--checkpoint-dir", elsewhere)).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(existsSync(`${elsewhere}/one`)).toBe(false);
  });
});
