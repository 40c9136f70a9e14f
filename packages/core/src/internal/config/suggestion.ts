/** Which known name an unknown one was meant to be. */

/** Edits (insert, delete, replace, swap of neighbours) that turn one name into the other. */
const distance = (a: string, b: string): number => {
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

const normal = (name: string): string => name.replaceAll(/[_.-]/g, "").toLowerCase()

/** The known name that `name` is a misspelling of, if there is one: a short name may be off by one edit, a longer by two. */
export const suggestion = (name: string, known: Iterable<string>): string | undefined => {
  const wanted = normal(name)
  if (wanted.length > 60) return undefined
  let best: string | undefined
  let fewest = wanted.length < 6 ? 2 : 3
  for (const candidate of known) {
    const edits = distance(wanted, normal(candidate))
    if (edits < fewest) {
      fewest = edits
      best = candidate
    }
  }
  return best
}
