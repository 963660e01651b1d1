// What a build gives back: a directory (by fsutil's protocol) or a stream of bytes. The engine may be anyone: no name may lead out of the directory, by itself or by
// a link that was sent before.
import {
  chmodSync,
  closeSync,
  constants,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { kindOf, permissionsOf } from "../../lib/go-mode.ts";
import type { ServerCall } from "../../lib/grpc/server.ts";
import { PACKET, Packet, type Stat } from "./messages.ts";

const MAX_FILES = 5_000_000;

function partsOf(path: string): string[] {
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..") || path.includes("\0"))
    throw new Error(`the builder sent a file with an invalid name: ${JSON.stringify(path)}`);
  return parts;
}

/** The place of a path below `root`; every directory on the way is a real one. */
function placeOf(root: string, path: string): string {
  const parts = partsOf(path);
  let at = root;
  for (const part of parts.slice(0, -1)) {
    at = join(at, part);
    const stat = lstatSync(at, { throwIfNoEntry: false });
    if (stat?.isDirectory()) continue;
    if (stat) throw new Error(`the builder sent a file below ${at}, which is no directory`);
    mkdirSync(at);
  }
  return join(root, path);
}

function setTimes(place: string, stat: Stat, link: boolean): void {
  const time = Number(stat.modTime) / 1e9;
  (link ? lutimesSync : utimesSync)(place, time, time);
}

/** Makes what a description says; true where contents are to come. */
function make(root: string, stat: Stat): boolean {
  const place = placeOf(root, stat.path);
  const kind = kindOf(stat.mode);
  const there = lstatSync(place, { throwIfNoEntry: false });
  if (kind === constants.S_IFDIR) {
    if (there && !there.isDirectory()) rmSync(place);
    if (!there?.isDirectory()) mkdirSync(place);
    chmodSync(place, permissionsOf(stat.mode) | 0o700);
    return false;
  }
  if (there) rmSync(place, { recursive: true });
  if (kind === constants.S_IFLNK) {
    symlinkSync(stat.linkname, place);
    setTimes(place, stat, true);
    return false;
  }
  if (kind !== constants.S_IFREG) return false;
  return true;
}

async function* packetsOf(call: Pick<ServerCall, "batches">): AsyncGenerator<Packet> {
  for await (const batch of call.batches()) for (const message of batch) yield Packet.decode(message);
}

/** Answers a call of FileSend.DiffCopy for an output that is a directory. */
export async function receiveDirectory(root: string, call: Pick<ServerCall, "batches" | "send">): Promise<void> {
  const send = (packet: Partial<Packet>) => call.send(Packet.encode(packet));
  mkdirSync(root, { recursive: true });
  const directories: Stat[] = [];
  const open = new Map<number, { fd: number; stat: Stat; place: string }>();
  const pending = new Map<number, Stat>();
  const links: Stat[] = [];
  let count = 0;
  let described = false;
  try {
    for await (const packet of packetsOf(call)) {
      if (packet.type === PACKET.STAT) {
        const { stat } = packet;
        if (!stat) described = true;
        else {
          if (count >= MAX_FILES) throw new Error(`the builder sent more than ${MAX_FILES} files`);
          // The file that it is another name of may still have to come.
          if (kindOf(stat.mode) === constants.S_IFREG && stat.linkname !== "") links.push(stat);
          else if (make(root, stat)) {
            pending.set(count, stat);
            send({ type: PACKET.REQ, ID: count });
          } else if (kindOf(stat.mode) === constants.S_IFDIR) directories.push(stat);
          count++;
        }
      } else if (packet.type === PACKET.DATA) {
        const stat = pending.get(packet.ID);
        if (!stat) throw new Error("the builder sent contents that were not asked for");
        let file = open.get(packet.ID);
        if (!file) {
          const place = placeOf(root, stat.path);
          file = {
            fd: openSync(place, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600),
            stat,
            place,
          };
          open.set(packet.ID, file);
        }
        let rest = packet.data;
        while (rest.length > 0) rest = rest.subarray(writeSync(file.fd, rest));
        if (packet.data.length === 0) {
          closeSync(file.fd);
          open.delete(packet.ID);
          pending.delete(packet.ID);
          chmodSync(file.place, permissionsOf(stat.mode));
          setTimes(file.place, stat, false);
        }
      } else if (packet.type === PACKET.ERR) throw new Error(`error from the builder: ${Buffer.from(packet.data).toString()}`);
      else if (packet.type === PACKET.FIN) return;
      if (described && pending.size === 0) {
        described = false;
        for (const stat of links) {
          make(root, stat);
          linkSync(placeOf(root, stat.linkname), placeOf(root, stat.path));
        }
        for (const stat of directories.reverse()) {
          const place = placeOf(root, stat.path);
          chmodSync(place, permissionsOf(stat.mode));
          setTimes(place, stat, false);
        }
        send({ type: PACKET.FIN });
      }
    }
  } finally {
    for (const { fd } of open.values()) closeSync(fd);
  }
}
