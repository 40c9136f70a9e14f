/**
 * Short strings of the wire: names, keys and most properties. AMQP says that they are UTF-8, but RabbitMQ passes on
 * whatever a publisher writes there.
 *
 * A byte that is not part of UTF-8 is read as a lone surrogate, U+DC80 for 0x80 to U+DCFF for 0xFF, and is written as
 * that byte again. So every short string can be written as it was read (Python's PEP 383 does the same). With U+FFFD
 * instead, different keys would become equal, and strings of 255 bytes would become too long to be written.
 */
import { isUtf8 } from "node:buffer"

const escapes = 0xdc00
const isEscape = (code: number) => code >= 0xdc80 && code <= 0xdcff

/** Number of bytes of the UTF-8 character that begins here, or 0 if none does. */
const sizeOfCharacter = (bytes: Buffer, at: number, end: number): number => {
  const first = bytes[at]!
  const size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0
  return size > 0 && at + size <= end && isUtf8(bytes.subarray(at, at + size)) ? size : 0
}

const readEscaped = (bytes: Buffer, start: number, end: number): string => {
  let text = ""
  for (let at = start; at < end;) {
    const size = sizeOfCharacter(bytes, at, end)
    if (size === 0) text += String.fromCharCode(escapes + bytes[at++]!)
    else text += bytes.toString("utf8", at, (at += size))
  }
  return text
}

export const readShortString = (bytes: Buffer, start: number, end: number): string => {
  let at = start
  while (at < end && bytes[at]! < 0x80) at++
  // Nearly all short strings are ASCII, for which latin1 is faster.
  if (at === end) return bytes.toString("latin1", start, end)
  const text = bytes.toString("utf8", start, end)
  // Node puts U+FFFD in place of bytes that are not UTF-8, but the text itself may also contain U+FFFD.
  return text.includes("\uFFFD") && !isUtf8(bytes.subarray(start, end)) ? readEscaped(bytes, start, end) : text
}

/** Returns the bytes of a text as it was read, or undefined if it has a lone surrogate that stands for no byte. */
const bytesOfEscaped = (text: string): Buffer | undefined => {
  const pieces: Array<Buffer> = []
  // The loop is over characters. A lone surrogate is one character.
  for (const character of text) {
    const code = character.charCodeAt(0)
    if (character.isWellFormed()) pieces.push(Buffer.from(character))
    else if (isEscape(code)) pieces.push(Buffer.of(code - escapes))
    else return undefined
  }
  return Buffer.concat(pieces)
}

/**
 * Size on the wire in bytes. Undefined if the text has a lone surrogate that stands for no byte, and cannot be written.
 */
export const sizeOfShortString = (text: string): number | undefined =>
  text.isWellFormed() ? Buffer.byteLength(text) : bytesOfEscaped(text)?.length

/** Writes a text that has a size, and returns where it ends. */
export const writeShortString = (room: Buffer, at: number, text: string): number => {
  if (text.isWellFormed()) return at + room.write(text, at)
  return at + bytesOfEscaped(text)!.copy(room, at)
}
