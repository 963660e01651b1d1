// For tests: git repositories over HTTP, by git's own server side (git-http-backend(1), a CGI program).

/** The answer of git for repositories below `root`; `path` is that of the request, from there. */
export async function gitAnswer(root: string, path: string, request: Request): Promise<Response> {
  const child = Bun.spawn(["git", "http-backend"], {
    env: {
      PATH: process.env.PATH ?? "",
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: "1",
      PATH_INFO: path,
      QUERY_STRING: new URL(request.url).search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: request.headers.get("content-type") ?? "",
      HTTP_CONTENT_ENCODING: request.headers.get("content-encoding") ?? "",
      GIT_PROTOCOL: request.headers.get("git-protocol") ?? "",
      GIT_CONFIG_COUNT: "2",
      GIT_CONFIG_KEY_0: "safe.directory",
      GIT_CONFIG_VALUE_0: "*",
      GIT_CONFIG_KEY_1: "uploadpack.allowAnySHA1InWant",
      GIT_CONFIG_VALUE_1: "true",
    },
    stdin: new Uint8Array(await request.arrayBuffer()),
    stdout: "pipe",
  });
  const out = Buffer.from(await new Response(child.stdout).arrayBuffer());
  const end = out.indexOf("\r\n\r\n");
  const headers = new Headers();
  let status = 200;
  for (const line of out.subarray(0, end).toString().split("\r\n")) {
    const [name = "", value = ""] = line.split(/: (.*)/s);
    if (name === "Status") status = Number.parseInt(value, 10);
    else if (name) headers.set(name, value);
  }
  return new Response(out.subarray(end + 4), { status, headers });
}
