// "linux/arm64/v8" as the API wants it in a query: a JSON object.

export function platformQuery(text: string): string | undefined {
  if (text === "") return undefined;
  const [os, architecture, variant] = text.split("/");
  if (!os || !/^[a-z0-9]+$/i.test(os)) throw new Error(`invalid platform: ${JSON.stringify(text)}`);
  return JSON.stringify({
    architecture: architecture ?? (process.arch === "x64" ? "amd64" : process.arch),
    os,
    ...(variant ? { variant } : {}),
  });
}
