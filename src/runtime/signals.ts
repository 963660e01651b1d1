// Signals that this program is sent, by Bun's event loop. The lean host has a module of its own in this one's place (lean/signals.ts).

/** Calls `handler` for each of them, until the returned function is called. They do not keep the program alive. */
export function onSignals<Name extends NodeJS.Signals>(names: readonly Name[], handler: (name: Name) => void): () => void {
  const handle = (name: NodeJS.Signals) => handler(name as Name);
  for (const name of names) process.on(name, handle);
  return () => {
    for (const name of names) process.off(name, handle);
  };
}
