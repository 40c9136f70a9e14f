/** Numbers for messages. */

/** The first `count` numbers from 0. */
export const range = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

/** The same numbers as contents. */
export const rangeTexts = (count: number): ReadonlyArray<string> => range(count).map(String)
