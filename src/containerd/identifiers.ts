// Names that become parts of paths: namespaces, containers, leases, execs. containerd's rule (pkg/identifiers): letters and digits, joined by
// single ".", "_" or "-", at most 76 characters.
import { invalidArgument } from "../lib/errors.ts";

const pattern = /^[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*$/;

/** InvalidArgument, with `what` in front, where `id` may not be used as an identifier. */
export function checkIdentifier(id: string, what: string): void {
  if (id === "") throw invalidArgument(`${what}: identifier must not be empty`);
  if (id.length > 76) throw invalidArgument(`${what}: identifier "${id}" greater than maximum length (76 characters)`);
  if (!pattern.test(id)) throw invalidArgument(`${what}: identifier "${id}" must match ${pattern.source}`);
}

/** Labels are bounded, key and value together, at 4096 bytes. */
export function checkLabels(labels: Record<string, string>): void {
  for (const [key, value] of Object.entries(labels)) {
    const length = Buffer.byteLength(key) + Buffer.byteLength(value);
    if (length > 4096) {
      throw invalidArgument(
        `label key and value length (${length} bytes) greater than maximum size (4096 bytes), key: ${key.slice(0, 64)}`,
      );
    }
  }
}
