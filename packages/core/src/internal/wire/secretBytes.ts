/**
 * The bytes of a secret, in memory of their own: in Buffer's pool, whoever prints the memory behind a small buffer of his
 * own prints them too.
 */
export const bytesOf = (secret: string): Buffer => {
  const bytes = Buffer.alloc(Buffer.byteLength(secret))
  bytes.write(secret)
  return bytes
}
