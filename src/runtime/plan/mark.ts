/** What a stand-in for a name begins with (template.ts). No name has it. */
export const MARK = "\x01";
