// `with { type: "file" }` gives the path of a file that `bun build --compile` embeds.
declare module "*.node" {
  const path: string;
  export default path;
}
