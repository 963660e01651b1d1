// What clients may use of the gateway and of LLB, by the names that BuildKit has for it. A client leaves out, or refuses with a clear sentence, what is not listed.
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { APICapSchema } from "../../gen/moby/buildkit/v1/apicaps_pb.ts";

const enabled = (ids: string): MessageInitShape<typeof APICapSchema>[] =>
  ids
    .trim()
    .split(/\s+/)
    .sort()
    .map((ID) => ({ ID, Enabled: true }));

export const FRONTEND_CAPS = enabled(`
  solve.base solve.inlinereturn resolveimage resolveimage.resolvemode readfile return returnmap readdir statfile importcaches
  proto.refarray reference.output frontend.inputs gateway.solve.metadata gateway.exec gateway.exec.extrahosts gateway.exec.secretenv
  gateway.exec.signals frontend.caps gateway.solve.evaluate gateway.evaluate gateway.warnings reference.attestations
  source.metaresolver
`);

// "soruce.http.uidgid" is how BuildKit spells it.
export const LLB_CAPS = enabled(`
  source.image source.image.resolvemode source.image.layerlimit
  source.local source.local.unique source.local.sessionid source.local.includepatterns source.local.followpaths
  source.local.excludepatterns source.local.sharedkeyhint source.local.differ
  source.git source.git.keepgitdir source.git.fullurl source.git.httpauth source.git.knownsshhosts source.git.mountsshsock source.git.subdir
  source.git.checksum source.git.skipsubmodules
  source.http source.http.checksum source.http.perm soruce.http.uidgid source.ocilayout
  exec.meta.base exec.meta.cgroup.parent exec.meta.network exec.meta.proxyenv exec.meta.security
  exec.meta.setsdefaultpath exec.meta.ulimit exec.meta.removemountstubs.recursive exec.mount.bind exec.mount.bind.readwrite-nooutput
  exec.mount.cache exec.mount.cache.sharing exec.mount.selector exec.mount.tmpfs exec.mount.tmpfs.size exec.mount.secret exec.mount.ssh
  exec.mount.cache.content exec.cgroup exec.secretenv exec.validexitcode
  file.base file.rm.wildcard file.rm.nofollowsymlink file.copy.includeexcludepatterns file.copy.requiredpaths
  file.copy.alwaysreplaceexistingdestpaths file.copy.modestring file.symlink.create
  constraints platform meta.ignorecache meta.description meta.exportcache
  mergeop diffop exporter.image.annotations exporter.image.attestations exporter.sourcedateepoch exporter.multiple
  gc.freespacefilter
`);
