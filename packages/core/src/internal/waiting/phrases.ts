/** Counts in messages: `1 request`, `2 requests`. */
export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`

/** The verb after a count: `1 request is`, `2 requests are`. */
export const isOrAre = (count: number): string => (count === 1 ? "is" : "are")

/** A text of the broker or of another library, to be followed by a period or by more of a sentence. */
export const withoutPeriod = (text: string): string => text.trimEnd().replace(/\.+$/, "")
