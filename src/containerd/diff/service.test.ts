// What the service does beside unpacking: the file system is written out before it answers, where that was asked for.
import { afterAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { ApplyRequestSchema } from "../../gen/containerd/services/diff/v1_pb.ts";
import type { ContentStore } from "../content/store.ts";
import { diffService } from "./service.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-diff-service-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("Apply with sync_fs has the file system synced, and fails where that fails", async () => {
  for (const each of ["tree", "root", "bin"]) mkdirSync(join(dir, each));
  writeFileSync(join(dir, "tree/file"), "content");
  execFileSync("tar", ["-cf", join(dir, "layer.tar"), "-C", join(dir, "tree"), "file"]);
  const service = diffService({ path: () => join(dir, "layer.tar") } as unknown as ContentStore);
  const apply = service.handlers.find(({ method }) => method.localName === "apply")!;
  const request = create(ApplyRequestSchema, {
    diff: { mediaType: "application/vnd.oci.image.layer.v1.tar", digest: `sha256:${"0".repeat(64)}` },
    mounts: [{ type: "bind", source: join(dir, "root"), options: ["rw", "rbind"] }],
    syncFs: true,
  });
  const run = async () => apply.run(request, { namespace: "jubako-test", lease: "", signal: new AbortController().signal });
  await run();
  expect(readFileSync(join(dir, "root/file"), "utf8")).toBe("content");

  const { PATH } = process.env;
  writeFileSync(join(dir, "bin/sync"), `#!/bin/sh\necho "$@" > ${dir}/asked\necho no such luck >&2\nexit 1\n`);
  chmodSync(join(dir, "bin/sync"), 0o755);
  process.env.PATH = `${join(dir, "bin")}:${PATH}`;
  try {
    await expect(run()).rejects.toThrow(/^sync the file system of .*\/root: .*no such luck/s);
  } finally {
    process.env.PATH = PATH;
  }
  expect(readFileSync(join(dir, "asked"), "utf8")).toBe(`-f ${join(dir, "root")}\n`);
});
