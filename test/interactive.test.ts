// Interactive work in real terminals (tmux) with the real docker CLI: typing, resizing, detaching, ctrl-c, a full-screen editor, two terminals on one container.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { lacks, sh, startEngine, type TestEngine, until } from "./support/engine.ts";

let servers = 0;
/** A tmux server of its own for each test: one that is just ending takes no new session. */
const tmux = (command: string) => sh(`tmux -L jubako-test-${process.pid}-${servers} -f /dev/null ${command}`);

interface Terminal {
  /** Types; names of keys as tmux has them ("Enter", "C-c"). */
  type(...keys: string[]): void;
  screen(): string;
  /** Waits until the screen shows it. */
  shows(text: string | RegExp): Promise<string>;
  /** Waits until the program has ended, and says its exit status. */
  ended(): Promise<string>;
  resize(columns: number, rows: number): void;
  close(): void;
}

function openTerminal(name: string, command: string): Terminal {
  const made = tmux(`new-session -d -s ${name} -x 80 -y 24 "exec ${command}"`);
  if (made.status !== 0) throw new Error(made.stderr);
  tmux(`set-option -t ${name} remain-on-exit on`);
  const screen = () => tmux(`capture-pane -p -t ${name}`).stdout;
  const program = tmux(`display-message -p -t ${name} "#{pane_pid}"`).stdout.trim();
  /** tmux 3.3 now and then forgets to reap it: then the kernel tells its status (proc(5), /proc/pid/stat, 52). */
  const status = (): string | undefined => {
    let fields: string[];
    try {
      fields = readFileSync(`/proc/${program}/stat`, "utf8")
        .replace(/^.*\) /, "")
        .split(" ");
    } catch {
      return tmux(`display-message -p -t ${name} "#{pane_dead_status}"`).stdout.trim() || undefined;
    }
    return fields[0] === "Z" ? String(Number(fields[49]) >> 8) : undefined;
  };
  return {
    type: (...keys) => void tmux(`send-keys -t ${name} ${keys.map((key) => `'${key}'`).join(" ")}`),
    screen,
    shows: (text) =>
      until(`${name} shows ${text}`, () => {
        const now = screen();
        return (typeof text === "string" ? now.includes(text) : text.test(now)) ? now : undefined;
      }).catch((error: Error) => {
        throw new Error(`${error.message}; the screen:\n${screen().trimEnd()}`);
      }),
    ended: () => until(`${name} ends`, status),
    resize: (columns, rows) => void tmux(`resize-window -t ${name} -x ${columns} -y ${rows}`),
    close: () => void tmux(`kill-session -t ${name}`),
  };
}

describe.skipIf(lacks("docker", "tmux"))("interactive work", () => {
  let engine: TestEngine;
  let docker: string;
  beforeAll(async () => {
    engine = await startEngine();
    docker = `docker -H ${engine.host}`;
  });
  afterEach(() => {
    tmux("kill-server");
    servers++;
  });
  afterAll(() => engine?.stop());

  test("run -it: a shell that echoes, knows the window's size, and its exit status", async () => {
    const terminal = openTerminal("shell", `${docker} run -it --name shell busybox sh`);
    await terminal.shows("/ #");
    terminal.type("stty size; echo typed-$((20+3))", "Enter");
    await terminal.shows("typed-23");
    expect(terminal.screen()).toContain("24 80");
    terminal.resize(100, 30);
    await until("the new size arrives", () => {
      terminal.type("stty size", "Enter");
      return terminal.screen().includes("30 100");
    });
    terminal.type("exit 7", "Enter");
    await until("it ended", () => engine.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "shell").stdout === "exited 7\n");
    engine.docker("rm", "shell");
  });

  test("ctrl-c reaches the program in the terminal; without one, the client passes the signal on", async () => {
    const terminal = openTerminal("interrupt", `${docker} run -it --rm busybox sh`);
    await terminal.shows("/ #");
    terminal.type("sleep 1000", "Enter");
    await new Promise((resolve) => setTimeout(resolve, 200));
    terminal.type("C-c");
    terminal.type("echo after-$((1+1))", "Enter");
    await terminal.shows("after-2");
    terminal.type("exit", "Enter");
    const plain = openTerminal(
      "plain",
      `${docker} run --rm --name plain busybox sh -c 'trap \\"exit 4\\" INT; while :; do sleep 0.1; done'`,
    );
    await until("it runs", () => engine.docker("ps", "-q", "--filter", "name=plain").stdout !== "");
    await new Promise((resolve) => setTimeout(resolve, 300));
    plain.type("C-c");
    expect(await plain.ended()).toBe("4");
  });

  test("detach keys leave it running; two terminals attach to the same", async () => {
    const first = openTerminal("first", `${docker} run -it --name shared busybox sh`);
    await first.shows("/ #");
    first.type("C-p", "C-q");
    expect(await first.ended()).toBe("0");
    expect(engine.docker("inspect", "-f", "{{.State.Running}}", "shared").stdout).toBe("true\n");
    const second = openTerminal("second", `${docker} attach shared`);
    const third = openTerminal("third", `${docker} attach shared`);
    await new Promise((resolve) => setTimeout(resolve, 300));
    second.type("echo both-$((40+2))", "Enter");
    await second.shows("both-42");
    await third.shows("both-42");
    third.type("exit", "Enter");
    expect(await second.ended()).toBe("0");
    engine.docker("rm", "-f", "shared");
  });

  test("exec -it vi: a full-screen editor writes a file", async () => {
    engine.docker("run", "-d", "--name", "edited", "busybox", "sleep", "1000");
    const terminal = openTerminal("editor", `${docker} exec -it edited vi /tmp/note`);
    await terminal.shows("/tmp/note");
    terminal.type("i");
    await terminal.shows("I /tmp/note");
    terminal.type("written in vi");
    await terminal.shows("written in vi");
    terminal.type("Escape"); // what follows too soon would be read as an escape sequence
    await terminal.shows("- /tmp/note");
    terminal.type(":wq", "Enter");
    expect(await terminal.ended()).toBe("0");
    expect(engine.docker("exec", "edited", "cat", "/tmp/note").stdout).toBe("written in vi\n");
    engine.docker("rm", "-f", "edited");
  });
});
