// DNS messages (RFC 1035), as far as a resolver needs them that answers a few names itself and passes everything else on as it is. Pure.

export const TYPE = { A: 1, PTR: 12, AAAA: 28 } as const;
export const RCODE = { ok: 0, formatError: 1, serverFailure: 2, nameError: 3, notImplemented: 4, refused: 5 } as const;

const HEADER = 12;
const CLASS_IN = 1;

export interface Question {
  id: number;
  /** Lower case, without the final dot. */
  name: string;
  type: number;
  class: number;
  /** Where the question section ends. */
  end: number;
}

/** The only question of a standard query; undefined for anything else. */
export function parseQuery(message: Uint8Array): Question | undefined {
  if (message.length < HEADER + 5 || message.length > 65535) return undefined;
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  const flags = view.getUint16(2);
  if (flags & 0x8000 || (flags >> 11) & 15 || view.getUint16(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = HEADER;
  for (let total = 0; ; ) {
    const length = message[at];
    if (length === undefined || length > 63) return undefined;
    at++;
    if (length === 0) break;
    total += length + 1;
    if (total > 254 || at + length > message.length) return undefined;
    labels.push(String.fromCharCode(...message.subarray(at, at + length)));
    at += length;
  }
  if (at + 4 > message.length) return undefined;
  return {
    id: view.getUint16(0),
    name: labels.join(".").toLowerCase(),
    type: view.getUint16(at),
    class: view.getUint16(at + 2),
    end: at + 4,
  };
}

export const isInternet = (question: Question): boolean => question.class === CLASS_IN;

/** Whether `reply` answers `query`: the question is the same, letter case included (some resolvers scramble it to make forging harder). */
export function answers(query: Uint8Array, end: number, reply: Uint8Array): boolean {
  if (reply.length < end || !(reply[2]! & 0x80)) return false;
  for (let i = 0; i < 2; i++) if (reply[i] !== query[i]) return false;
  for (let i = HEADER; i < end; i++) if (reply[i] !== query[i]) return false;
  return true;
}

export const rcodeOf = (reply: Uint8Array): number => reply[3]! & 15;

function name(text: string): Uint8Array {
  const out: number[] = [];
  for (const label of text.split(".")) if (label) out.push(label.length & 63, ...Buffer.from(label, "latin1").subarray(0, 63));
  out.push(0);
  return Uint8Array.from(out);
}

export interface Answer {
  type: number;
  data: Uint8Array;
}

export const pointer = (to: string): Answer => ({ type: TYPE.PTR, data: name(to) });

/** A reply to `query` with these records for the name that was asked, in seconds of `ttl`. */
export function reply(query: Uint8Array, question: Question | undefined, rcode: number, records: Answer[] = [], ttl = 600): Uint8Array {
  const end = question?.end ?? HEADER;
  const out = new Uint8Array(end + records.reduce((n, r) => n + 12 + r.data.length, 0));
  out.set(query.subarray(0, Math.min(end, query.length)));
  const view = new DataView(out.buffer);
  // response, recursion desired as asked, recursion available
  view.setUint16(2, 0x8080 | ((query[2] ?? 0) & 1 ? 0x100 : 0) | (((query[2] ?? 0) << 8) & 0x7800) | rcode);
  view.setUint16(4, question ? 1 : 0);
  view.setUint16(6, records.length);
  view.setUint32(8, 0);
  let at = end;
  for (const record of records) {
    view.setUint16(at, 0xc000 | HEADER);
    view.setUint16(at + 2, record.type);
    view.setUint16(at + 4, CLASS_IN);
    view.setUint32(at + 6, ttl);
    view.setUint16(at + 10, record.data.length);
    out.set(record.data, at + 12);
    at += 12 + record.data.length;
  }
  return out;
}

/** The address that a reverse name asks for; undefined where it is none. */
export function reverseAddress(text: string): Uint8Array | undefined {
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(text);
  if (v4) {
    const bytes = v4.slice(1).reverse().map(Number);
    return bytes.every((b) => b < 256) ? Uint8Array.from(bytes) : undefined;
  }
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(text);
  return v6 ? Uint8Array.from(Buffer.from(v6[1]!.split(".").reverse().join(""), "hex")) : undefined;
}

/** A DNS message as it goes over a stream: its length before it. */
export function framed(message: Uint8Array): Uint8Array {
  const out = new Uint8Array(message.length + 2);
  out[0] = message.length >> 8;
  out[1] = message.length & 255;
  out.set(message, 2);
  return out;
}

/** Cuts a stream into messages. */
export function frames(): (chunk: Uint8Array) => Uint8Array[] {
  let rest: Uint8Array = new Uint8Array(0);
  return (chunk) => {
    const all = new Uint8Array(rest.length + chunk.length);
    all.set(rest);
    all.set(chunk, rest.length);
    const out: Uint8Array[] = [];
    let at = 0;
    while (at + 2 <= all.length) {
      const length = (all[at]! << 8) | all[at + 1]!;
      if (at + 2 + length > all.length) break;
      out.push(all.slice(at + 2, at + 2 + length));
      at += 2 + length;
    }
    rest = all.slice(at);
    return out;
  };
}
