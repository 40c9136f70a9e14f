/** What messages are numbered by. */

/** From 0, so many of them. */
export const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

/** The same, as contents. */
export const texts = (count: number): ReadonlyArray<string> => numbers(count).map(String)
