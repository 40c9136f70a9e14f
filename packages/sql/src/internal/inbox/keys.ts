/** Keys and names as they are stored. */
import { createHash } from "node:crypto"

/** Longest text that is stored as it is, in bytes of UTF-8. A `messageId` of AMQP has at most as many. */
const maxBytes = 255
const hashed = "sha256:"

/**
 * The text that stands in the table: the text itself, or its SHA-256 if it is longer than 255 bytes, or if a database
 * cannot store it, because it has NUL or a lone surrogate.
 */
export const storedText = (text: string): string => {
  const isWellFormed = text.isWellFormed()
  // A text that looks like a hash is hashed too, so that it never equals the hash of another one.
  if (isWellFormed && !text.startsWith(hashed) && !text.includes("\0") && Buffer.byteLength(text) <= maxBytes)
    return text
  // UTF-8 has no lone surrogates: two texts with different ones would become the same bytes.
  const bytes = Buffer.from(text, isWellFormed ? "utf8" : "utf16le")
  return hashed + createHash("sha256").update(bytes).digest("hex")
}
