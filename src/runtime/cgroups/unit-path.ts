/** SLICE:PREFIX:NAME, as whoever uses systemd's driver writes cgroupsPath. */
export function isUnitPath(cgroupsPath: string | undefined): boolean {
  return /^[^/:]+\.slice:[^/:]*:[^/:]+$/.test(cgroupsPath ?? "");
}
