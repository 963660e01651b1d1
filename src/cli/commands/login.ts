import { writeConfig } from "../../client/index.ts";
import { atMost, type Cli, command } from "../command.ts";
import { getCredentials, hostOf, INDEX_SERVER, storeCredentials } from "../credentials.ts";
import { bool, string } from "../flags.ts";

export default command({
  use: "[OPTIONS] [SERVER]",
  short: "Authenticate to a registry",
  args: atMost(1),
  flags: {
    password: string("p", "Password or Personal Access Token (PAT)"),
    "password-stdin": bool("", "Take the Password or Personal Access Token (PAT) from stdin"),
    username: string("u", "Username"),
  },
  async run(cli, flags, args) {
    const server = args[0] === undefined || hostOf(args[0]) === "docker.io" ? INDEX_SERVER : hostOf(args[0]);
    let { username, password } = flags;
    if (cli.changed.has("password")) cli.err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
    if (flags["password-stdin"]) {
      if (cli.changed.has("password")) throw new Error("conflicting options: cannot specify both --password and --password-stdin");
      if (username === "") throw new Error("the --password-stdin option requires --username to be set");
      password = (await readAll()).replace(/\r?\n$/, "");
    }
    const known = username === "" && password === "" ? await getCredentials(cli.config, server) : undefined;
    if (known && (known.identitytoken || known.password)) {
      cli.err("Authenticating with existing credentials...\n\n");
      username = known.username ?? "";
      password = known.password ?? "";
    } else if (username === "" || password === "") {
      ({ username, password } = await ask(cli, username, password));
    }
    const client = await cli.client();
    const answer = await client.system.auth({
      username,
      password,
      serveraddress: server,
      ...(known?.identitytoken ? { identitytoken: known.identitytoken } : {}),
    });
    const config = { ...cli.config };
    const credentials = answer.IdentityToken
      ? { username, identitytoken: answer.IdentityToken, serveraddress: server }
      : { username, password, serveraddress: server };
    if (!config.credsStore && !config.credHelpers?.[server]) {
      cli.err(`\nWARNING! Your credentials are stored unencrypted in '${cli.configDir}/config.json'.\n`);
      cli.err("Configure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n");
    }
    if (await storeCredentials(config, credentials)) writeConfig(cli.configDir, config);
    cli.out(`${answer.Status}\n`);
    return 0;
  },
});

async function readAll(): Promise<string> {
  const { inputChunks } = await import("../terminal/input.ts");
  const chunks: Uint8Array[] = [];
  for await (const chunk of inputChunks(0)) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

async function readLine(): Promise<string> {
  const { inputChunks } = await import("../terminal/input.ts");
  let text = "";
  for await (const chunk of inputChunks(0)) {
    text += new TextDecoder().decode(chunk);
    if (text.includes("\n")) break;
  }
  return text.split(/\r?\n/)[0]!;
}

async function ask(cli: Cli, given: string, known: string): Promise<{ username: string; password: string }> {
  if (!cli.isTty(0)) throw new Error("Error: Cannot perform an interactive login from a non TTY device");
  let username = given;
  let password = known;
  if (username === "") {
    cli.out("Username: ");
    username = (await readLine()).trim();
    if (username === "") throw new Error("Error: Non-null Username Required");
  }
  if (password === "") {
    const { withoutEcho } = await import("../terminal/tty.ts");
    cli.out("Password: ");
    password = await withoutEcho(0, readLine);
    cli.out("\n");
    if (password === "") throw new Error("Error: Password Required");
  }
  return { username, password };
}
