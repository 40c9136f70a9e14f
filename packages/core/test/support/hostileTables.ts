/** Tables as an attacker may send them. */

/** The bytes of a table in a table in a table: for each, an empty key, the tag of a table, its size. */
export const nestedTable = (levels: number): Buffer => {
  const bytes = Buffer.alloc(4 + levels * 6)
  for (let i = 0; i <= levels; i++) {
    bytes.writeUInt32BE((levels - i) * 6, i * 6)
    if (i < levels) bytes[i * 6 + 5] = 0x46
  }
  return bytes
}

/** Keys with the names of Object's members. */
export const objectKeys: ReadonlyArray<string> = [
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "valueOf",
  "then"
]
