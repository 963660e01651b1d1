// What people are told when a build fails: the instruction with its lines, what it said last, its exit status; at BuildKit's door by the real buildx, at the classic
// one by the docker CLI, and by our own command line. One engine for the file.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { buildctl, buildx, startBuildx, type TestBuildx } from "./support/buildx.ts";
import { lacks } from "./support/engine.ts";

setDefaultTimeout(60_000);

interface Failure {
  Dockerfile: string;
  /** The line that is pointed at. */
  line: number;
  /** What BuildKit's clients are told. */
  says: string;
  /** What the classic door says, where that is something else. */
  classic?: string;
  /** What the instruction said before. */
  output?: string;
}

const ZEROS = "0".repeat(64);

const failures: Record<string, Failure> = {
  "a file that is missing in the context": {
    Dockerfile: "FROM busybox\nCOPY nope /x\n",
    line: 2,
    says: 'failed to compute cache key: failed to calculate checksum: "/nope": not found',
    classic: "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
  },
  "a file that is missing in a stage": {
    Dockerfile: "FROM busybox AS a\nFROM busybox\nCOPY --from=a /nope /x\n",
    line: 3,
    says: '"/nope": not found',
    classic: "COPY failed: stat nope: file does not exist",
  },
  "a stage that there is none of": {
    Dockerfile: "FROM busybox\nCOPY --from=9 /a /b\n",
    line: 2,
    says: "invalid stage index 9",
  },
  "an owner that the image does not know": {
    Dockerfile: "FROM busybox\nCOPY --chown=nosuch Dockerfile /x\n",
    line: 2,
    says: "can't find uid for user nosuch",
  },
  "a wrong checksum": {
    Dockerfile: `FROM busybox\nADD --checksum=sha256:${ZEROS} http://127.0.0.1:1/x /x\n`,
    line: 2,
    says: "connect",
  },
  "a command of a here-document": {
    Dockerfile: "FROM busybox\nRUN <<EOF\necho first\necho second >&2\nexit 42\nEOF\n",
    line: 2,
    output: "second",
    says: 'process "/bin/sh -c echo first\\necho second >&2\\nexit 42\\n" did not complete successfully: exit code: 42',
    classic: "returned a non-zero code: 42",
  },
  "a command that ends by a signal": {
    Dockerfile: "FROM busybox\nRUN echo before; sh -c 'kill -9 $$'; exit $?\n",
    line: 2,
    output: "before",
    says: "exit code: 137",
    classic: "returned a non-zero code: 137",
  },
  "a program that is not there": {
    Dockerfile: 'FROM busybox\nRUN ["/nothere"]\n',
    line: 2,
    says: 'process "/nothere" did not complete successfully: OCI runtime create failed: exec: "/nothere": stat /nothere: no such file or directory',
    classic: 'exec: "/nothere": stat /nothere: no such file or directory',
  },
  "a user that the image does not know": {
    Dockerfile: "FROM busybox\nUSER nobodyhere\nRUN true\n",
    line: 3,
    says: 'process "/bin/sh -c true" did not complete successfully: unable to find user nobodyhere: no matching entries in passwd file',
    classic: "unable to find user nobodyhere: no matching entries in passwd file",
  },
  "a directory below a file": {
    Dockerfile: "FROM busybox\nRUN echo x > /file\nWORKDIR /file/sub\n",
    line: 3,
    says: "mkdir /file/sub: not a directory",
  },
  "an instruction that is none": {
    Dockerfile: "FROM busybox\nFROG\n",
    line: 2,
    says: "unknown instruction: FROG",
  },
  "an option that is none": {
    Dockerfile: "FROM busybox\nRUN --mount=type=foo true\n",
    line: 2,
    says: 'unsupported mount type "foo"',
  },
  "too few arguments": {
    Dockerfile: "FROM busybox\nCOPY a\n",
    line: 2,
    says: "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
  },
};

describe.skipIf(lacks("docker") || buildx === undefined)("failed builds", () => {
  let t: TestBuildx;
  beforeAll(async () => {
    t = await startBuildx();
  });
  afterAll(() => t?.engine.stop());

  const guilty = ({ Dockerfile, line }: Failure) => `>>> ${Dockerfile.split("\n")[line - 1]}`;

  for (const [what, failure] of Object.entries(failures)) {
    test(what, () => {
      const { Dockerfile, line, says, output } = failure;
      const dir = t.context({ Dockerfile });
      const failed = t.build(dir);
      expect(failed.status).toBe(1);
      expect(failed.stderr).toContain(says);
      expect(failed.stderr).toContain(`Dockerfile:${line}`);
      expect(failed.stderr).toContain(guilty(failure));
      if (output) expect(failed.stderr).toMatch(new RegExp(`------\\n > \\[[^\\n]*\\n(.*\\n)*\\d+\\.\\d+ ${output}\\n(.*\\n)*------`));
      const own = t.engine.jubako("build", "--progress", "plain", dir);
      expect(own.status).not.toBe(0);
      expect(own.stderr).toContain(guilty(failure).slice(4));
      if (output) expect(own.stdout + own.stderr).toContain(output);
      // Heredocs and mounts are no instructions of a classic client's file, but of ours.
      const env = { ...t.env, DOCKER_BUILDKIT: "0" };
      const old = t.engine.dockerWith({ env }, "build", dir);
      expect(old.status).toBeGreaterThan(0);
      expect(old.stdout + old.stderr).toContain(failure.classic ?? says);
      if (output) expect(old.stdout + old.stderr).toContain(output);
    });
  }

  test("a target that there is none of, an image that can't be had, an export that can't be", () => {
    const dir = t.context({ Dockerfile: "FROM busybox AS one\nRUN true\n" });
    expect(t.build(dir, "--target", "onee").stderr).toContain('target stage "onee" could not be found (did you mean one?)');
    const missing = t.build(t.context({ Dockerfile: "FROM 127.0.0.1:1/none\n" }));
    expect(missing.stderr).toContain("failed to resolve source metadata for 127.0.0.1:1/none:latest");
    expect(missing.stderr).toContain(">>> FROM 127.0.0.1:1/none");
    const local = ["--frontend", "dockerfile.v0", "--local", `context=${dir}`, "--local", `dockerfile=${dir}`];
    for (const [to, error] of buildctl
      ? [
          ["type=gha,url=http://127.0.0.1:1,token=t", "cache exports of the type gha"],
          ["type=s3,bucket=b,region=r", "cache exports of the type s3"],
          ["type=foo", 'unknown cache exporter: "foo"'],
          ["type=registry,ref=127.0.0.1:1/c,mode=mid", "invalid cache mode mid"],
        ]
      : []) {
      const args = ["--addr", t.engine.host, "build", "--no-cache", ...local, "--export-cache", to!];
      const refused = spawnSync(buildctl!, args, { encoding: "utf8", timeout: 60_000 });
      expect(refused.stderr).toContain(error!);
      // before anything was built
      expect(refused.stderr).not.toContain("RUN true");
    }
  });
});
