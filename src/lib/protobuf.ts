// Protobuf messages by tables of their fields, for a program that has just started: the generated ones cost 16 ms there, which is more than all else that a build with
// nothing to do takes its client. The values have the generated messages' shapes, so that one can be made of the other.
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

interface Scalars {
  string: string;
  bytes: Uint8Array;
  bool: boolean;
  /** Also of enums. */
  int32: number;
  uint32: number;
  int64: bigint;
}
type Scalar = keyof Scalars;

export interface Message<T> {
  /** What is left out has no value. */
  encode(value: Partial<T>): Uint8Array;
  /** What did not come is "", 0, empty, or undefined where it would be a message. */
  decode(bytes: Uint8Array): T;
}

type Kind = Scalar | Message<unknown>;
interface Field {
  number: number;
  kind: Kind;
  repeated: "one" | "list" | "map";
}
type Valued<K> = K extends Scalar ? Scalars[K] : K extends Message<infer T> ? T : never;
type One<K> = Field & { is: K extends Scalar ? Valued<K> : Valued<K> | undefined };
type FieldsOf<F> = { [P in keyof F]: F[P] extends { is: infer V } ? V : never };
export type Shape<M> = M extends Message<infer T> ? T : never;

const field = (number: number, kind: Kind, repeated: Field["repeated"]) => ({ number, kind, repeated });
export const one = <const K extends Kind>(number: number, kind: K) => field(number, kind, "one") as One<K>;
export const list = <const K extends Kind>(number: number, kind: K) => field(number, kind, "list") as Field & { is: Valued<K>[] };
/** By strings. */
export const map = <const K extends Kind>(number: number, kind: K) =>
  field(number, kind, "map") as Field & { is: Record<string, Valued<K>> };

const isScalar = (kind: Kind): kind is Scalar => typeof kind === "string";
const wireType = (kind: Kind): WireType =>
  !isScalar(kind) || kind === "string" || kind === "bytes" ? WireType.LengthDelimited : WireType.Varint;

const EMPTY: { [K in Scalar]: () => Scalars[K] } = {
  string: () => "",
  bytes: () => new Uint8Array(),
  bool: () => false,
  int32: () => 0,
  uint32: () => 0,
  int64: () => 0n,
};

function write(writer: BinaryWriter, number: number, kind: Kind, value: unknown): void {
  writer.tag(number, wireType(kind));
  if (!isScalar(kind)) writer.bytes(kind.encode(value as object));
  else if (kind === "string") writer.string(value as string);
  else if (kind === "bytes") writer.bytes(value as Uint8Array);
  else if (kind === "bool") writer.bool(value as boolean);
  else if (kind === "int64") writer.int64(value as bigint);
  else if (kind === "uint32") writer.uint32(value as number);
  else writer.int32(value as number);
}

function read(reader: BinaryReader, kind: Kind): unknown {
  if (!isScalar(kind)) return kind.decode(reader.bytes());
  if (kind === "int64") return BigInt(reader.int64());
  return reader[kind]();
}

const isEmpty = (value: unknown) =>
  value === undefined ||
  value === "" ||
  value === 0 ||
  value === 0n ||
  value === false ||
  (value instanceof Uint8Array && value.length === 0);

export function message<F extends Record<string, Field>>(fields: F): Message<FieldsOf<F>> {
  const entries = Object.entries(fields);
  const byNumber = new Map(entries.map(([name, each]) => [each.number, { name, ...each }]));
  return {
    encode(value) {
      const writer = new BinaryWriter();
      for (const [name, { number, kind, repeated }] of entries) {
        const given = (value as Record<string, unknown>)[name];
        if (repeated === "one") {
          if (!isEmpty(given)) write(writer, number, kind, given);
        } else if (repeated === "list") for (const each of (given ?? []) as unknown[]) write(writer, number, kind, each);
        else
          for (const [key, each] of Object.entries((given ?? {}) as object)) {
            const entry = new BinaryWriter();
            write(entry, 1, "string", key);
            write(entry, 2, kind, each);
            writer.tag(number, WireType.LengthDelimited).bytes(entry.finish());
          }
      }
      return writer.finish();
    },
    decode(bytes) {
      const value: Record<string, unknown> = {};
      for (const [name, { kind, repeated }] of entries)
        value[name] = repeated === "list" ? [] : repeated === "map" ? {} : isScalar(kind) ? EMPTY[kind]() : undefined;
      const reader = new BinaryReader(bytes);
      while (reader.pos < reader.len) {
        const [number, type] = reader.tag();
        const known = byNumber.get(number);
        if (!known) {
          reader.skip(type, number);
          continue;
        }
        const { name, kind, repeated } = known;
        if (repeated === "map") {
          const [key, item] = pair(reader.bytes(), kind);
          // A name that every object has is as good as another.
          Object.defineProperty(value[name], key, { value: item, enumerable: true, configurable: true, writable: true });
        } else if (repeated === "one") value[name] = read(reader, kind);
        else if (type === WireType.LengthDelimited && wireType(kind) === WireType.Varint) {
          const packed = new BinaryReader(reader.bytes());
          while (packed.pos < packed.len) (value[name] as unknown[]).push(read(packed, kind));
        } else (value[name] as unknown[]).push(read(reader, kind));
      }
      return value as FieldsOf<F>;
    },
  };
}

function pair(bytes: Uint8Array, kind: Kind): [string, unknown] {
  const reader = new BinaryReader(bytes);
  let key = "";
  let value: unknown = isScalar(kind) ? EMPTY[kind]() : kind.decode(new Uint8Array());
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (number === 1) key = reader.string();
    else if (number === 2) value = read(reader, kind);
    else reader.skip(type, number);
  }
  return [key, value];
}
