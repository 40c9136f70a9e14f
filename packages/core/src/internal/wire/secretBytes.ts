/**
 * Returns the bytes of a secret in memory of their own. In Buffer's pool, code that prints the memory behind a small
 * buffer of its own would print them too.
 */
export const secretBytes = (secret: string): Buffer => {
  const bytes = Buffer.alloc(Buffer.byteLength(secret))
  bytes.write(secret)
  return bytes
}
