/**
 * Refuses unknown names in records of options.
 *
 * The compiler refuses most of them, but not in JavaScript, in a record with an index signature, or in one that was
 * made elsewhere. A misspelled option would silently have no effect.
 */

/** The names of a record of options. A name that the type has and the list lacks, or the reverse, does not compile. */
export type Names<Options> = { readonly [Name in keyof Options]-?: true }

/** Number of edits (insert, delete, replace, swap of neighbors) that turn one name into the other. */
const editDistance = (a: string, b: string): number => {
  let beforeLast: Array<number> = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      row.push(
        Math.min(
          last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1),
          last[j]! + 1,
          row[j - 1]! + 1,
          isSwap ? beforeLast[j - 2]! + 1 : Infinity
        )
      )
    }
    beforeLast = last
    last = row
  }
  return last[b.length]!
}

const normalize = (name: string): string => name.replaceAll(/[_-]/g, "").toLowerCase()

/** The known name that is closest to a name, if at most a third of its letters differ. */
const closestName = (name: string, known: ReadonlyArray<string>): string | undefined => {
  if (name.length > 60) return undefined
  const meant = normalize(name)
  const [best] = known
    .map((candidate) => ({ candidate, edits: editDistance(meant, normalize(candidate)) }))
    .filter(({ candidate, edits }) => edits <= Math.max(1, Math.floor(candidate.length / 3)))
    .toSorted((a, b) => a.edits - b.edits)
  return best?.candidate
}

/**
 * Throws if the record has a name that is not known. That is a mistake in the program, so the layer that reads the
 * record dies while it is built. The value is not shown, and does not matter: `undefined` is refused as well.
 */
export const refuseUnknownNames = <Options extends object>(
  where: string,
  options: Options,
  names: Names<NoInfer<Options>>
): void => {
  if (typeof options !== "object" || options === null) {
    throw new Error(`${where}: expected an object with options, got ${String(options)}`)
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(names, name)) continue
    const known = Object.keys(names)
    const meant = closestName(name, known)
    throw new Error(
      `${where}: expected only ${known.join(", ")}, got ${JSON.stringify(name)}.${meant === undefined ? "" : ` Did you mean ${meant}?`}`
    )
  }
}
