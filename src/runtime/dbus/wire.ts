// D-Bus' wire format (https://dbus.freedesktop.org/doc/dbus-specification.html, "Type System" and "Message Protocol"): values by their signature, and
// messages. Written little-endian, read in either order. What is read is not trusted: every length is checked against what is there, depth and size have
// the specification's bounds.
//
// Values: y n q i u h d are numbers, x t bigints, b booleans, s o g strings, a… lists (dictionaries too, of [key, value]), (…) and {…} lists, v a Variant.
import { invalidArgument } from "../../lib/errors.ts";
import { utf8 } from "../../linux/index.ts";

export interface Variant {
  signature: string;
  value: Value;
}
export type Value = number | bigint | boolean | string | Variant | readonly Value[];

export const METHOD_CALL = 1;
export const METHOD_RETURN = 2;
export const ERROR = 3;
export const SIGNAL = 4;

export interface Message {
  type: number;
  /** 1: no reply is expected. */
  flags: number;
  serial: number;
  path?: string;
  interface?: string;
  member?: string;
  errorName?: string;
  replySerial?: number;
  destination?: string;
  sender?: string;
  signature: string;
  body: readonly Value[];
}

/** The specification's is 128 MB; nobody here has that much to say. */
const MAX_MESSAGE = 16 << 20;
const MAX_ARRAY = 64 << 20;
const MAX_DEPTH = 64;
const FIXED_HEADER = 16;

const fail = (message: string): never => {
  throw invalidArgument(`D-Bus: ${message}`);
};

const SIZES: Record<string, number> = {
  y: 1,
  n: 2,
  q: 2,
  i: 4,
  u: 4,
  b: 4,
  h: 4,
  x: 8,
  t: 8,
  d: 8,
  s: 4,
  o: 4,
  g: 1,
  a: 4,
  "(": 8,
  "{": 8,
  v: 1,
};

/** Where the complete type that begins at `at` ends. */
function endOfType(signature: string, at: number, depth = 0): number {
  const code = signature[at];
  if (code === undefined || depth > MAX_DEPTH) return fail(`signature ${JSON.stringify(signature)} is not valid`);
  if (code === "a") {
    if (signature[at + 1] !== "{") return endOfType(signature, at + 1, depth + 1);
    const key = signature[at + 2] ?? "";
    if (!key || !"ynqiuxtdbsogh".includes(key))
      return fail(`signature ${JSON.stringify(signature)} has a dictionary with the key type ${key}`);
    const end = endOfType(signature, at + 3, depth + 2);
    return signature[end] === "}" ? end + 1 : fail(`signature ${JSON.stringify(signature)} is not valid`);
  }
  if (code === "(") {
    let end = at + 1;
    while (signature[end] !== ")") end = endOfType(signature, end, depth + 1);
    return end === at + 1 ? fail("a structure has no members") : end + 1;
  }
  return "ynqiuxtdbsoghv".includes(code)
    ? at + 1
    : fail(`signature ${JSON.stringify(signature)} has the unknown type ${JSON.stringify(code)}`);
}

/** The complete types that a signature strings together. */
export function typesOf(signature: string): string[] {
  if (signature.length > 255) fail("a signature is longer than 255 bytes");
  const types: string[] = [];
  for (let at = 0; at < signature.length; ) {
    const end = endOfType(signature, at);
    types.push(signature.slice(at, end));
    at = end;
  }
  return types;
}

// ---- writing

interface Writer {
  bytes: Uint8Array;
  view: DataView;
  length: number;
}

function room(writer: Writer, size: number): number {
  const at = writer.length;
  writer.length += size;
  if (writer.length > MAX_MESSAGE) fail("the message is too long");
  if (writer.length > writer.bytes.length) {
    const bytes = new Uint8Array(Math.max(writer.length, writer.bytes.length * 2));
    bytes.set(writer.bytes);
    writer.bytes = bytes;
    writer.view = new DataView(bytes.buffer);
  }
  return at;
}

/** The view once there is room: more of it is another view. */
function put(writer: Writer, size: number): DataView {
  room(writer, size);
  return writer.view;
}

function align(writer: Writer, size: number): void {
  room(writer, -writer.length & (size - 1));
}

function writeText(writer: Writer, text: string, lengthSize: 1 | 4): void {
  const bytes = utf8(text);
  if (bytes.includes(0)) fail(`the string ${JSON.stringify(text)} has a NUL byte in it`);
  const at = room(writer, lengthSize);
  if (lengthSize === 1) writer.view.setUint8(at, bytes.length < 256 ? bytes.length : fail("a signature is longer than 255 bytes"));
  else writer.view.setUint32(at, bytes.length, true);
  const start = room(writer, bytes.length + 1);
  writer.bytes.set(bytes, start);
}

function writeValue(writer: Writer, type: string, value: Value): void {
  const code = type[0]!;
  align(writer, SIZES[code] ?? 1);
  const number = () => (typeof value === "number" ? value : fail(`${type} takes a number`));
  const list = () => (Array.isArray(value) ? (value as readonly Value[]) : fail(`${type} takes a list`));
  switch (code) {
    case "y":
      put(writer, 1).setUint8(writer.length - 1, number());
      break;
    case "n":
      put(writer, 2).setInt16(writer.length - 2, number(), true);
      break;
    case "q":
      put(writer, 2).setUint16(writer.length - 2, number(), true);
      break;
    case "i":
      put(writer, 4).setInt32(writer.length - 4, number(), true);
      break;
    case "u":
    case "h":
      put(writer, 4).setUint32(writer.length - 4, number(), true);
      break;
    case "b":
      put(writer, 4).setUint32(writer.length - 4, value ? 1 : 0, true);
      break;
    case "x":
    case "t":
      put(writer, 8).setBigUint64(writer.length - 8, BigInt.asUintN(64, BigInt(value as bigint | number)), true);
      break;
    case "d":
      put(writer, 8).setFloat64(writer.length - 8, number(), true);
      break;
    case "s":
    case "o":
      writeText(writer, String(value), 4);
      break;
    case "g":
      writeText(writer, String(value), 1);
      break;
    case "v": {
      const variant = value as Variant;
      writeText(writer, variant.signature, 1);
      if (typesOf(variant.signature).length !== 1) fail(`a variant holds one value, not ${JSON.stringify(variant.signature)}`);
      writeValue(writer, variant.signature, variant.value);
      break;
    }
    case "a": {
      const at = room(writer, 4);
      const element = type.slice(1);
      align(writer, SIZES[element[0]!] ?? 1);
      const start = writer.length;
      for (const each of list()) writeValue(writer, element, each);
      writer.view.setUint32(at, writer.length - start, true);
      break;
    }
    default: {
      const types = typesOfMembers(type);
      const members = list();
      if (members.length !== types.length) fail(`${type} takes ${types.length} members, not ${members.length}`);
      for (const [i, member] of types.entries()) writeValue(writer, member, members[i]!);
    }
  }
}

/** Of "(su)" or "{sv}". */
function typesOfMembers(type: string): string[] {
  return typesOf(type.slice(1, -1));
}

export function encodeBody(signature: string, values: readonly Value[]): Uint8Array {
  const writer: Writer = { bytes: new Uint8Array(256), view: new DataView(new ArrayBuffer(0)), length: 0 };
  writer.view = new DataView(writer.bytes.buffer);
  const types = typesOf(signature);
  if (types.length !== values.length) fail(`${values.length} values for the signature ${signature}`);
  for (const [i, type] of types.entries()) writeValue(writer, type, values[i]!);
  return writer.bytes.subarray(0, writer.length);
}

/** Header fields by their codes. */
const FIELDS = [
  [1, "path", "o"],
  [2, "interface", "s"],
  [3, "member", "s"],
  [4, "errorName", "s"],
  [5, "replySerial", "u"],
  [6, "destination", "s"],
  [7, "sender", "s"],
] as const;

export function encodeMessage(message: Message): Uint8Array {
  const body = encodeBody(message.signature, message.body);
  const fields: Value[] = [];
  for (const [code, name, signature] of FIELDS) {
    const value = message[name];
    if (value !== undefined) fields.push([code, { signature, value }]);
  }
  if (message.signature) fields.push([8, { signature: "g", value: message.signature }]);
  const header = encodeBody("yyyyuua(yv)", [0x6c, message.type, message.flags, 1, body.length, message.serial, fields]);
  const bytes = new Uint8Array(((header.length + 7) & ~7) + body.length);
  bytes.set(header);
  bytes.set(body, bytes.length - body.length);
  return bytes;
}

// ---- reading

interface Reader {
  bytes: Uint8Array;
  view: DataView;
  at: number;
  /** The end of what may be read now. */
  end: number;
  little: boolean;
}

function take(reader: Reader, size: number): number {
  const at = reader.at;
  if (size > reader.end - at) fail("a value is longer than its message");
  reader.at = at + size;
  return at;
}

function skipPadding(reader: Reader, size: number): void {
  const padding = -reader.at & (size - 1);
  const at = take(reader, padding);
  for (let i = 0; i < padding; i++) if (reader.bytes[at + i] !== 0) fail("padding is not zero");
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function readText(reader: Reader, length: number): string {
  const at = take(reader, length + 1);
  if (reader.bytes[at + length] !== 0) fail("a string does not end in NUL");
  try {
    return decoder.decode(reader.bytes.subarray(at, at + length));
  } catch {
    return fail("a string is not UTF-8");
  }
}

function readValue(reader: Reader, type: string, depth: number): Value {
  if (depth > MAX_DEPTH) fail("values are nested too deeply");
  const code = type[0]!;
  const { view, little } = reader;
  skipPadding(reader, SIZES[code] ?? 1);
  switch (code) {
    case "y":
      return view.getUint8(take(reader, 1));
    case "n":
      return view.getInt16(take(reader, 2), little);
    case "q":
      return view.getUint16(take(reader, 2), little);
    case "i":
      return view.getInt32(take(reader, 4), little);
    case "u":
    case "h":
      return view.getUint32(take(reader, 4), little);
    case "b": {
      const value = view.getUint32(take(reader, 4), little);
      return value > 1 ? fail("a boolean is neither 0 nor 1") : value === 1;
    }
    case "x":
      return view.getBigInt64(take(reader, 8), little);
    case "t":
      return view.getBigUint64(take(reader, 8), little);
    case "d":
      return view.getFloat64(take(reader, 8), little);
    case "s":
    case "o":
      return readText(reader, view.getUint32(take(reader, 4), little));
    case "g":
      return readText(reader, view.getUint8(take(reader, 1)));
    case "v": {
      const signature = readText(reader, view.getUint8(take(reader, 1)));
      if (typesOf(signature).length !== 1) fail(`a variant holds one value, not ${JSON.stringify(signature)}`);
      return { signature, value: readValue(reader, signature, depth + 1) };
    }
    case "a": {
      const length = view.getUint32(take(reader, 4), little);
      if (length > MAX_ARRAY) fail("an array is too long");
      const element = type.slice(1);
      skipPadding(reader, SIZES[element[0]!] ?? 1);
      const outer = reader.end;
      const end = reader.at + length;
      if (end > outer) fail("an array is longer than its message");
      reader.end = end;
      const values: Value[] = [];
      while (reader.at < end) values.push(readValue(reader, element, depth + 1));
      reader.end = outer;
      return values;
    }
    default:
      return typesOfMembers(type).map((member) => readValue(reader, member, depth + 1));
  }
}

/** How long the message is that begins with these bytes; undefined while that cannot be told. */
export function messageLength(bytes: Uint8Array): number | undefined {
  if (bytes.length < FIXED_HEADER) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const order = bytes[0];
  if (order !== 0x6c && order !== 0x42) fail("a message has neither byte order");
  if (bytes[3] !== 1) fail(`a message has protocol version ${bytes[3]}`);
  const little = order === 0x6c;
  const total = ((FIXED_HEADER + view.getUint32(12, little) + 7) & ~7) + view.getUint32(4, little);
  return total > 0 && total <= MAX_MESSAGE ? total : fail("a message is too long");
}

/** One whole message. */
export function decodeMessage(bytes: Uint8Array): Message {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const reader: Reader = { bytes, view, at: 0, end: bytes.length, little: bytes[0] === 0x6c };
  if (messageLength(bytes) !== bytes.length) fail("a message has not the length that it says");
  const [, type, flags, , length, serial, fields] = typesOf("yyyyuua(yv)").map((each) => readValue(reader, each, 0));
  const message: Message = { type: type as number, flags: flags as number, serial: serial as number, signature: "", body: [] };
  for (const field of fields as [number, Variant][]) {
    const [code, { signature, value }] = field;
    const known = FIELDS.find(([number]) => number === code);
    if (known) {
      if (signature !== known[2]) fail(`header field ${known[1]} is of type ${signature}`);
      Object.assign(message, { [known[1]]: value });
    } else if (code === 8)
      message.signature = signature === "g" ? (value as string) : fail("the signature's header field has another type");
  }
  if (message.type === METHOD_CALL && !(message.path && message.member)) fail("a call names no object or method");
  if (message.type === SIGNAL && !(message.path && message.interface && message.member)) fail("a signal is not named in full");
  if ((message.type === METHOD_RETURN || message.type === ERROR) && message.replySerial === undefined) fail("a reply answers nothing");
  skipPadding(reader, 8);
  if (reader.end - reader.at !== length) fail("a message's body has not the length that it says");
  // The body's alignment counts from its own start, which is a multiple of 8.
  message.body = typesOf(message.signature).map((each) => readValue(reader, each, 0));
  if (reader.at !== reader.end) fail("a message is longer than its signature");
  return message;
}
