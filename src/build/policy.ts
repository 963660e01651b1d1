// Source policies: what a client lets a build use of the outside, and what it shall use in its place (BuildKit's sourcepolicy). Rules are gone through in their
// order; of those that allow or deny, the last one that matches counts; one that converts begins the rules anew with what it made.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type AttrConstraint,
  AttrMatch,
  MatchType,
  type Policy,
  PolicyAction,
  type Rule,
  type Selector,
} from "../gen/moby/buildkit/v1/sourcepolicy_pb.ts";
import { type Definition, DefinitionSchema, type Op, OpSchema, type SourceOp } from "../gen/pb_pb.ts";
import { invalidArgument, messageOf, permissionDenied, unknown } from "../lib/errors.ts";
import { digestOf, formatReference, parseReference, withDefaultTag } from "../oci/index.ts";
import type { BuildHost } from "./host.ts";

export interface SourcePolicy {
  /** Changes the source to what it shall be. True where it did. PermissionDenied, InvalidArgument. */
  evaluate(source: SourceOp): boolean;
  /** These rules, then those. */
  with(policies: readonly Policy[]): SourcePolicy;
}

/** Conversions of one source; more are taken for a cycle. */
const MAX_CHANGES = 20;
const MAX_PATTERN = 4096;

/** Go's regular expressions as JavaScript has them: flags at the beginning are what differs in practice. */
function expression(pattern: string): RegExp {
  if (pattern.length > MAX_PATTERN)
    throw invalidArgument(`a regular expression of a source policy is longer than ${MAX_PATTERN} characters`);
  const [given = "", flags = ""] = /^\(\?([ims]+)\)/.exec(pattern) ?? [];
  try {
    return new RegExp(pattern.slice(given.length).replaceAll("(?P<", "(?<"), flags);
  } catch (error) {
    throw invalidArgument(`invalid regex ${JSON.stringify(pattern)}: ${messageOf(error)}`);
  }
}

function wildcard(pattern: string): RegExp {
  if (pattern.includes("**"))
    throw invalidArgument(`failed to translate wildcard ${JSON.stringify(pattern)} to regexp: invalid wildcard: "**"`);
  return expression(`^${pattern.replace(/[.+?^${}()|[\]\\/]/g, "\\$&").replaceAll("*", "(.*)")}$`);
}

/** "$1", "${name}": a name is as long as it can be, as in Go; "$$" is a dollar. */
const expanded = (template: string, match: RegExpMatchArray): string =>
  template.replace(/\$(?:\$|\{(\w+)\}|(\w+))/g, (text, braced?: string, bare?: string) => {
    const name = braced ?? bare;
    if (name === undefined) return text === "$$" ? "$" : text;
    return (/^\d+$/.test(name) ? match[Number(name)] : match.groups?.[name]) ?? "";
  });

function meets({ key, value, condition }: AttrConstraint, attrs: SourceOp["attrs"]): boolean {
  const have = attrs[key] ?? "";
  switch (condition) {
    case AttrMatch.EQUAL:
      return have === value;
    case AttrMatch.NOTEQUAL:
      return have !== value;
    case AttrMatch.MATCHES:
      return expression(value).test(have);
    default:
      throw invalidArgument(`unknown attr condition: ${condition}`);
  }
}

function matches(selector: Selector, { identifier, attrs }: SourceOp): boolean {
  if (!selector.constraints.every((each) => meets(each, attrs))) return false;
  if (selector.identifier === identifier) return true;
  switch (selector.matchType) {
    case MatchType.EXACT:
      return false;
    case MatchType.REGEX:
      return expression(selector.identifier).test(identifier);
    case MatchType.WILDCARD:
      return wildcard(selector.identifier).test(identifier);
    default:
      throw invalidArgument(`unknown match type: ${selector.matchType}`);
  }
}

/** What an identifier becomes. BuildKit leaves it as it is where the match is to be exact, without a word; here it means what it says. */
function converted(selector: Selector, identifier: string, template: string): string {
  if (selector.matchType === MatchType.EXACT) return template;
  if (selector.matchType === MatchType.REGEX) {
    const { source, flags } = expression(selector.identifier);
    const all = new RegExp(source, `${flags}g`);
    let made = "";
    let at = 0;
    for (const match of identifier.matchAll(all)) {
      made += identifier.slice(at, match.index) + expanded(template, match);
      at = match.index + match[0].length;
    }
    return made + identifier.slice(at);
  }
  const match = wildcard(selector.identifier).exec(identifier);
  return match ? expanded(template, match) : identifier;
}

function convert(source: SourceOp, { selector, updates }: Rule): boolean {
  if (!updates) throw invalidArgument("error mutating source policy: missing destination for convert rule");
  const wanted = converted(selector!, source.identifier, updates.identifier || selector!.identifier);
  let changed = false;
  if (wanted !== "" && wanted !== source.identifier) {
    source.identifier = wanted;
    changed = true;
  }
  for (const [name, value] of Object.entries(updates.attrs)) {
    changed ||= source.attrs[name] !== value;
    source.attrs[name] = value;
  }
  return changed;
}

/** One pass of one policy; true where it changed the source. */
function pass({ rules }: Policy, source: SourceOp): boolean {
  let denied = false;
  for (const rule of rules) {
    if (!matches(rule.selector!, source)) continue;
    if (rule.action === PolicyAction.ALLOW) denied = false;
    else if (rule.action === PolicyAction.DENY) denied = true;
    else if (rule.action !== PolicyAction.CONVERT) throw invalidArgument(`source policy: unknown action ${rule.action}`);
    else if (convert(source, rule)) return true;
  }
  if (denied) throw permissionDenied(`source ${JSON.stringify(source.identifier)} denied by policy`);
  return false;
}

/** InvalidArgument where a policy is not well-formed. */
export function createPolicy(policies: readonly Policy[]): SourcePolicy {
  for (const { rules } of policies)
    for (const { selector } of rules) if (!selector) throw invalidArgument("invalid nil selector in policy");
  return {
    evaluate(source) {
      let changes = 0;
      while (policies.some((policy) => pass(policy, source)))
        if (++changes > MAX_CHANGES) throw invalidArgument("too many mutations on a single source: too many operations");
      return changes > 0;
    },
    with: (more) => createPolicy([...policies, ...more]),
  };
}

/** A definition with the sources that the policy wants; whatever stands upon one that was changed has another digest, too. */
export function applyPolicy(policy: SourcePolicy, definition: Definition): Definition {
  const renamed = new Map<string, string>();
  const metadata: Definition["metadata"] = { ...definition.metadata };
  const def = definition.def.map((bytes) => {
    let op: Op;
    try {
      op = fromBinary(OpSchema, bytes);
    } catch (error) {
      throw invalidArgument(`failed to parse LLB operation: ${messageOf(error)}`, error);
    }
    let changed = op.op.case === "source" && guarded("error evaluating the source policy", () => policy.evaluate(op.op.value as SourceOp));
    for (const input of op.inputs) {
      const now = renamed.get(input.digest);
      changed ||= now !== undefined;
      input.digest = now ?? input.digest;
    }
    if (!changed) return bytes;
    const made = toBinary(OpSchema, op);
    const [before, after] = [digestOf(bytes), digestOf(made)];
    renamed.set(before, after);
    if (metadata[before]) metadata[after] = metadata[before];
    delete metadata[before];
    return made;
  });
  if (renamed.size === 0) return definition;
  const { Source: source } = definition;
  // Others hold it, too, and look for lines by the digests that there are now.
  for (const [before, after] of renamed) if (source?.locations[before]) source.locations[after] = source.locations[before];
  return create(DefinitionSchema, { def, metadata, ...(source ? { Source: source } : {}) });
}

function guarded<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw unknown(`${what}: ${messageOf(error)}`, error);
  }
}

/** The host, on which images are looked up as the policy wants them. */
export function withPolicy(host: BuildHost, policy: SourcePolicy): BuildHost {
  const { resolveImage } = host;
  const prefix = "docker-image://";
  return {
    ...host,
    async resolveImage(ref, platform, mode) {
      const source = {
        $typeName: "pb.SourceOp",
        identifier: `${prefix}${formatReference(withDefaultTag(parseReference(ref)))}`,
        attrs: {},
      } as SourceOp;
      const changed = guarded("could not resolve image due to policy", () => policy.evaluate(source));
      if (!changed) return resolveImage.call(host, ref, platform, mode);
      if (!source.identifier.startsWith(prefix)) throw invalidArgument(`the source policy makes ${source.identifier} of the image ${ref}`);
      const name = source.identifier.slice(prefix.length);
      return { ...(await resolveImage.call(host, name, platform, mode)), name };
    },
  };
}
