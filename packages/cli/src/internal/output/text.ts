/**
 * Text from brokers, made safe for a terminal.
 *
 * Names, headers and contents are chosen by others. A terminal executes escape sequences, and bidirectional controls
 * reorder what an operator reads, so neither is ever written.
 */
import { displayWidth } from "effect/cli/CliOutput"

// C0, DEL and C1 controls (a lone U+009B begins a sequence too); characters that are not seen and change what is seen, such
// as bidirectional controls and joiners; separators of lines; lone surrogates.
const unsafe = /\p{Control}|\p{Format}|\p{Line_Separator}|\p{Paragraph_Separator}|\p{Surrogate}/gu

const short: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }

const escaped = (character: string): string => {
  const code = character.codePointAt(0)!
  const known = short[character]
  if (known !== undefined) return known
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`
}

/** One line of text without anything that a terminal would execute. */
export const line = (text: string): string => text.replaceAll(unsafe, escaped)

/** Like `line`, but keeps line ends: for messages of the library, which may list mistakes. */
export const lines = (text: string): string => text.split("\n").map(line).join("\n")

/** A word of a command that an operator may copy. A name in double quotes could run what is in it. */
export const shellWord = (text: string): string =>
  /^[\w.:/@%+-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", "'\\''")}'`

/** JSON on one line. JSON itself allows DEL, C1 and bidirectional controls: they are escaped too. */
export const json = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? inner.toString() : inner)).replaceAll(
    unsafe,
    (character) =>
      Array.from(
        { length: character.length },
        (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`
      ).join("")
  )

export const width: (text: string) => number = displayWidth

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" })

/** The text, shortened to so many columns, with an ellipsis where it was cut. */
export const truncate = (text: string, columns: number): string => {
  if (width(text) <= columns) return text
  let kept = ""
  let used = 0
  for (const { segment } of graphemes.segment(text)) {
    const next = width(segment)
    if (used + next > columns - 1) break
    kept += segment
    used += next
  }
  return columns < 1 ? "" : `${kept}…`
}

export const padEnd = (text: string, columns: number): string => text + " ".repeat(Math.max(0, columns - width(text)))
