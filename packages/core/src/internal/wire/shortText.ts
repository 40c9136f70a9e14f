/**
 * Short strings of the wire: names, keys and most properties. AMQP says that they are UTF-8, and RabbitMQ passes on
 * whatever a publisher writes there.
 *
 * A byte that is no part of UTF-8 is read as a lone surrogate, U+DC80 for 0x80 to U+DCFF for 0xFF, and written as that
 * byte again: so every short string can be written as it was read (Python's PEP 383 does the same). U+FFFD in its place
 * would make keys equal that are not, and texts of 255 bytes too long to be written.
 */
import { isUtf8 } from "node:buffer"

const escapes = 0xdc00
const isEscape = (code: number) => code >= 0xdc80 && code <= 0xdcff

/** How many bytes of UTF-8 the character has that begins here; 0: it is none. */
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

export const readShortText = (bytes: Buffer, start: number, end: number): string => {
  let at = start
  while (at < end && bytes[at]! < 0x80) at++
  // Nearly all are ASCII, which is made sooner so.
  if (at === end) return bytes.toString("latin1", start, end)
  const text = bytes.toString("utf8", start, end)
  // What Node puts in the place of bytes that are not UTF-8, unless it was there before.
  return text.includes("\uFFFD") && !isUtf8(bytes.subarray(start, end)) ? readEscaped(bytes, start, end) : text
}

/** The bytes of a text as it was read; undefined: it has a lone surrogate that stands for no byte. */
const bytesOfEscaped = (text: string): Buffer | undefined => {
  const pieces: Array<Buffer> = []
  // By characters: a surrogate that is left alone is one.
  for (const character of text) {
    const code = character.charCodeAt(0)
    if (character.isWellFormed()) pieces.push(Buffer.from(character))
    else if (isEscape(code)) pieces.push(Buffer.of(code - escapes))
    else return undefined
  }
  return Buffer.concat(pieces)
}

/** The size on the wire; undefined: the text has a lone surrogate that stands for no byte, and cannot be written. */
export const sizeOfShortText = (text: string): number | undefined =>
  text.isWellFormed() ? Buffer.byteLength(text) : bytesOfEscaped(text)?.length

/** Writes a text that has a size; where it ends. */
export const writeShortText = (room: Buffer, at: number, text: string): number => {
  if (text.isWellFormed()) return at + room.write(text, at)
  return at + bytesOfEscaped(text)!.copy(room, at)
}
