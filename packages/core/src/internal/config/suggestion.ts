/** Finds the known name that an unknown name was meant to be. */

/** Number of edits (insert, delete, replace, swap of neighbors) that turn one name into the other. */
const editDistance = (a: string, b: string): number => {
  let beforeLast: Array<number> = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let edits = Math.min(last[j - 1]! + (same ? 0 : 1), last[j]! + 1, row[j - 1]! + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        edits = Math.min(edits, beforeLast[j - 2]! + 1)
      }
      row.push(edits)
    }
    beforeLast = last
    last = row
  }
  return last[b.length]!
}

const normalize = (name: string): string => name.replaceAll(/[_.-]/g, "").toLowerCase()

/**
 * Returns the known name that `name` misspells, if there is one. A short name may differ by one edit, a longer one by
 * two.
 */
export const closestName = (name: string, known: Iterable<string>): string | undefined => {
  const wanted = normalize(name)
  if (wanted.length > 60) return undefined
  let best: string | undefined
  let fewest = wanted.length < 6 ? 2 : 3
  for (const candidate of known) {
    const edits = editDistance(wanted, normalize(candidate))
    if (edits < fewest) {
      fewest = edits
      best = candidate
    }
  }
  return best
}
