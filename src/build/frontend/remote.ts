// A context from an address for the classic builder, which takes a tar: a git repository's files, an archive as it is, or a Dockerfile alone.
import { constants } from "node:fs";
import { invalidArgument } from "../../lib/errors.ts";
import { TAR_END, type TarType, tarEntry, tarHeader, tarOf, tarPadding } from "../../oci/index.ts";
import type { BuildSession, FileInfo } from "../session.ts";
import { isArchive } from "./context.ts";
import { createMarshaller, type Output } from "./nodes.ts";
import { gitReference, gitSource, httpSource, isAddress } from "./sources.ts";

const KINDS = new Map<number, TarType>([
  [constants.S_IFDIR, "directory"],
  [constants.S_IFREG, "file"],
  [constants.S_IFLNK, "symlink"],
]);

function headerOf(info: FileInfo) {
  const linked = info.linkname !== "" && (info.mode & constants.S_IFMT) === constants.S_IFREG;
  const type: TarType | undefined = linked ? "link" : KINDS.get(info.mode & constants.S_IFMT);
  return (
    type &&
    tarEntry(info.path, type, {
      mode: info.mode & 0o7777,
      linkname: info.linkname,
      size: type === "file" ? info.size : 0,
      mtimeSec: Number(info.mtime / 1_000_000_000n),
      mtimeNsec: Number(info.mtime % 1_000_000_000n),
    })
  );
}

/** The context's tar, made while it is read; `session` must last as long. */
export async function* remoteContext(session: Pick<BuildSession, "load">, address: string): AsyncGenerator<Uint8Array> {
  const marshaller = createMarshaller({ filename: "", data: new Uint8Array() });
  const load = (output: Output) => session.load(marshaller.definition(output));
  const git = gitReference(address, true);
  if (!git && !isAddress(address))
    throw invalidArgument(`unable to prepare context: ${address} is neither a git repository nor an address`);
  const ref = load(
    git
      ? gitSource(git, false, { name: `[internal] load git source ${address}` })
      : httpSource(address, "context", undefined, { name: "[internal] load remote build context" }),
  );
  // A tree is only there while a function works on it; a queue of one carries its pieces out.
  let give: (piece: Uint8Array | undefined) => void = () => {};
  let ask: () => void = () => {};
  let next = new Promise<Uint8Array | undefined>((resolve) => {
    give = resolve;
  });
  const put = async (piece: Uint8Array): Promise<void> => {
    const asked = new Promise<void>((resolve) => {
      ask = resolve;
    });
    give(piece);
    await asked;
  };
  const working = ref
    .withTree(async (tree) => {
      if (!git) {
        const head = await ref.readFile("context", { offset: 0, length: 1024 });
        if (isArchive(head)) for await (const piece of await tree.open("context")) await put(piece as Uint8Array);
        else await put(tarOf([{ header: tarEntry("Dockerfile", "file"), data: await ref.readFile("context") }]));
        return;
      }
      for await (const info of tree.entries()) {
        const header = headerOf(info);
        if (!header) continue;
        await put(tarHeader(header));
        if (header.type !== "file") continue;
        for await (const piece of await tree.open(info.path)) await put(piece as Uint8Array);
        await put(tarPadding(header.size));
      }
      await put(TAR_END);
    })
    .finally(() => give(undefined));
  working.catch(() => {});
  for (;;) {
    const piece = await next;
    if (!piece) break;
    next = new Promise((resolve) => {
      give = resolve;
    });
    yield piece;
    ask();
  }
  await working;
}
