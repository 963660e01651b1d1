// `with { type: "file" }` gives the path of a file that `bun build --compile` embeds.
declare module "*build/player" {
  const path: string;
  export default path;
}

declare module "*.b64" {
  const text: string;
  export default text;
}
