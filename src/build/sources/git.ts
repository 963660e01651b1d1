// git:// sources: one commit of a repository, fetched by the git program into a directory of its own. A repository is hostile: no hooks run, no
// configuration of this host or of the repository counts, only known protocols are spoken, nothing asks at a terminal.
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { failedPrecondition, invalidArgument, messageOf, notFound, unavailable } from "../../lib/errors.ts";
import { close, O_DIRECTORY, O_RDONLY, open, RESOLVE_IN_ROOT } from "../../linux/index.ts";
import { files } from "../../oci/index.ts";

export interface GitSource {
  /** As git takes it. */
  remote: string;
  /** Branch, tag or commit; "" is the default branch. */
  ref: string;
  subdirectory: string;
  keepGitDir: boolean;
  skipSubmodules: boolean;
  /** Commit id, or its beginning, that it must be. */
  checksum: string;
  tokenSecret: string;
  headerSecret: string;
  knownHosts: string;
  sshAgent: string;
}

const COMMIT = /^([0-9a-f]{40}|[0-9a-f]{64})$/;

/** A source's identifier and attributes, parsed. InvalidArgument. */
export function gitSource(identifier: string, attrs: Record<string, string>): GitSource {
  const hash = identifier.indexOf("#");
  const [ref = "", subdirectory = ""] = hash < 0 ? [] : identifier.slice(hash + 1).split(/:(.*)/s);
  const place = (hash < 0 ? identifier : identifier.slice(0, hash)).replace(/^git:\/\//, "");
  const remote = attrs["git.fullurl"] || `https://${place}`;
  const scp = /^[A-Za-z0-9._-]+@[A-Za-z0-9._-]+:(?!\/\/)/.test(remote);
  if (!scp && !/^(https?|git|ssh):\/\/[^/-]/i.test(remote))
    throw invalidArgument(`git remote ${remote}: only http, https, git and ssh are possible`);
  if (/[\0-\x1f]/.test(remote) || remote.startsWith("-")) throw invalidArgument("invalid git remote");
  const named = attrs["git.ref"] ?? ref;
  if (named.startsWith("-") || /[\0-\x20~^:?*[\\]|\.\.|@\{/.test(named)) throw invalidArgument(`invalid git ref ${named}`);
  const checksum = attrs["git.checksum"] ?? "";
  if (checksum !== "" && !/^[0-9a-f]{4,64}$/.test(checksum)) throw invalidArgument(`invalid git checksum ${checksum}`);
  const flag = (name: string) => attrs[name] === "true" || attrs[name] === "1";
  return {
    remote,
    ref: named,
    subdirectory: posix.join("/", subdirectory).replace(/^\/|\/$/g, ""),
    keepGitDir: flag("git.keepgitdir"),
    skipSubmodules: flag("git.skipsubmodules"),
    checksum,
    tokenSecret: attrs["git.authtokensecret"] ?? "",
    headerSecret: attrs["git.authheadersecret"] ?? "",
    knownHosts: attrs["git.knownsshhosts"] ?? "",
    sshAgent: attrs["git.mountsshsock"] ?? "",
  };
}

export interface GitHost {
  secret(id: string): Promise<Uint8Array | undefined>;
  ssh(id: string): Promise<{ path: string; release(): Promise<void> } | undefined>;
}

export interface Repository extends AsyncDisposable {
  /** The commit that the source means now. */
  commit: string;
  /** Where its files are after checkOut(), until it is disposed. */
  directory: string;
  checkOut(): Promise<void>;
}

const MAX_TEXT = 1 << 20;

/** Finds what the source means. Unavailable, NotFound, FailedPrecondition (checksum). */
export async function openRepository(
  dataDir: string,
  source: GitSource,
  host: GitHost,
  options: { signal: AbortSignal; log(bytes: Uint8Array): void },
): Promise<Repository> {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const home = await mkdtemp(join(dataDir, "git-"));
  const undo: (() => unknown)[] = [() => rm(home, { recursive: true, force: true })];
  const dispose = async () => {
    for (const each of undo.splice(0).reverse()) await each();
  };
  const environment: Record<string, string> = {
    PATH: process.env.PATH ?? "/usr/bin:/bin",
    HOME: home,
    LC_ALL: "C",
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_TERMINAL_PROMPT: "0",
    GIT_ASKPASS: "/bin/false",
    SSH_ASKPASS: "/bin/false",
    GIT_ALLOW_PROTOCOL: "http:https:git:ssh",
    GIT_LFS_SKIP_SMUDGE: "1",
  };
  const settings: [string, string][] = [
    ["core.hooksPath", "/dev/null"],
    ["core.fsmonitor", "false"],
    ["core.symlinks", "true"],
    ["protocol.ext.allow", "never"],
    ["protocol.file.allow", "never"],
    ["gc.auto", "0"],
    ["advice.detachedHead", "false"],
    ["init.defaultBranch", "main"],
    ["transfer.fsckObjects", "true"],
    ["http.lowSpeedLimit", "1"],
    ["http.lowSpeedTime", "60"],
  ];

  async function git(args: string[], cwd = repository): Promise<string> {
    // By the environment: a list of processes shows no secret.
    const named = Object.fromEntries(
      settings.flatMap(([name, value], i) => [
        [`GIT_CONFIG_KEY_${i}`, name],
        [`GIT_CONFIG_VALUE_${i}`, value],
      ]),
    );
    const child = spawn("git", args, {
      cwd,
      env: { ...environment, ...named, GIT_CONFIG_COUNT: String(settings.length) },
      stdio: ["ignore", "pipe", "pipe"],
      signal: options.signal,
      killSignal: "SIGKILL",
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (bytes: Buffer) => {
      if (out.length < MAX_TEXT) out += bytes.toString("utf8");
    });
    child.stderr.on("data", (bytes: Buffer) => {
      options.log(bytes);
      if (err.length < MAX_TEXT) err += bytes.toString("utf8");
    });
    const status = await new Promise<number>((resolve, reject) => {
      child.once("error", (error) =>
        reject(options.signal.aborted ? options.signal.reason : unavailable(`git: ${messageOf(error)}`, error)),
      );
      child.once("close", (code) => resolve(code ?? 137));
    });
    if (status !== 0)
      throw unavailable(`git ${args[0]} ${source.remote}: ${err.trim().split("\n").slice(-3).join("\n") || `status ${status}`}`);
    return out;
  }

  const repository = join(home, "repository");
  const directory = join(home, "result");
  try {
    mkdirSync(repository);
    const origin = /^(https?:\/\/[^/]+)/i.exec(source.remote)?.[1];
    const token = source.tokenSecret ? await host.secret(source.tokenSecret) : undefined;
    const header = source.headerSecret ? await host.secret(source.headerSecret) : undefined;
    if (origin && (header || token)) {
      const said = header
        ? Buffer.from(header).toString("utf8").trim()
        : `basic ${Buffer.from(`x-access-token:${Buffer.from(token!).toString("utf8").trim()}`).toString("base64")}`;
      settings.push([`http.${origin}/.extraheader`, `Authorization: ${said}`]);
    }
    if (source.sshAgent) {
      const agent = await host.ssh(source.sshAgent);
      if (agent) {
        undo.push(() => agent.release());
        environment.SSH_AUTH_SOCK = agent.path;
      }
    }
    const known = join(home, "known_hosts");
    await writeFile(known, source.knownHosts);
    const checking = source.knownHosts === "" ? "no" : "yes";
    environment.GIT_SSH_COMMAND = `ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=${checking} -o UserKnownHostsFile=${known}`;

    await git(["init", "--quiet", "--bare", repository], home);
    let commit: string;
    let wanted = source.ref;
    if (COMMIT.test(source.ref)) commit = source.ref;
    else {
      const found = new Map<string, string>();
      const asked = source.ref === "" ? ["HEAD"] : [source.ref, `${source.ref}^{}`];
      for (const line of (await git(["ls-remote", "--", source.remote, ...asked])).split("\n")) {
        const [id = "", name = ""] = line.split("\t");
        if (COMMIT.test(id)) found.set(name, id);
      }
      const names =
        source.ref === "" ? ["HEAD"] : [source.ref, `refs/tags/${source.ref}`, `refs/heads/${source.ref}`, `refs/${source.ref}`];
      const name = names.find((each) => found.has(each));
      if (name === undefined) throw notFound(`repository ${source.remote} does not contain ref ${source.ref || "HEAD"}`);
      wanted = name;
      // an annotated tag stands for the commit that it is about
      commit = found.get(`${name}^{}`) ?? found.get(name)!;
    }
    if (source.checksum !== "" && !commit.startsWith(source.checksum))
      throw failedPrecondition(`expected checksum to match ${source.checksum}, got ${commit}`);

    async function checkOut(): Promise<void> {
      const fetch = (what: string, ...how: string[]) =>
        git(["fetch", "--quiet", "--no-tags", "--update-head-ok", ...how, "--", source.remote, what]);
      try {
        await fetch(COMMIT.test(wanted) ? wanted : `${wanted}:${wanted === "HEAD" ? "refs/heads/fetched" : wanted}`, "--depth=1");
      } catch (error) {
        // Servers may refuse a commit that no ref names.
        if (!COMMIT.test(wanted)) throw error;
        await fetch("+refs/*:refs/remotes/origin/*");
      }
      const tree = join(home, "files");
      mkdirSync(tree, { mode: 0o755 });
      const inPlace = ["--git-dir", repository, "--work-tree", tree];
      await git([...inPlace, "config", "core.bare", "false"]);
      await git([...inPlace, "checkout", "--quiet", "--force", "--detach", commit], tree);
      const head = (await git([...inPlace, "rev-parse", "HEAD"])).trim();
      if (head !== commit) throw failedPrecondition(`git checked out ${head} instead of ${commit}`);
      const update = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
      if (!source.skipSubmodules) await git([...inPlace, "-c", `remote.origin.url=${source.remote}`, ...update], tree);
      if (source.keepGitDir && source.subdirectory === "") {
        await git([...inPlace, "config", "remote.origin.url", source.remote]);
        await rename(repository, join(tree, ".git"));
      }
      await rename(source.subdirectory === "" ? tree : below(tree, source.subdirectory), directory);
    }
    return { commit, directory, checkOut, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

/** A directory below another, links followed inside it. NotFound. */
function below(root: string, path: string): string {
  const fd = open(root, O_RDONLY | O_DIRECTORY);
  try {
    const found = files.openIn(fd, Buffer.from(path).toString("latin1"), O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT);
    if (found < 0) throw notFound(`the git repository has no directory ${path}`);
    const place = files.shown(files.readLink(-100, `/proc/self/fd/${found}`));
    close(found);
    return place;
  } finally {
    close(fd);
  }
}
