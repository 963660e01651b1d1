// struct sockaddr_un (unix(7)).
import { errno, SystemError } from "./errno.ts";
import { utf8 } from "./files.ts";

export const AF_UNIX = 1;
const MAX_PATH = 107;

/** Of a path of at most 107 bytes; with a NUL in front, of a name in no file system. */
export function unixAddress(path: string): Uint8Array {
  const name = utf8(path);
  if (name.length > MAX_PATH) throw new SystemError(`the path of the socket ${path}`, errno.ENAMETOOLONG);
  const address = new Uint8Array(2 + name.length + (name[0] === 0 ? 0 : 1));
  address[0] = AF_UNIX;
  address.set(name, 2);
  return address;
}
