/** How exchanges choose the bindings that a message matches. */
import * as Table from "./table.ts"

/** Whether a routing key matches a binding key, in which `*` is one word and `#` any number of words. */
export const matchesTopic = (pattern: string, key: string): boolean => {
  const patternWords = pattern.split(".")
  // An empty key has no words, but the empty binding key matches it.
  const words = key === "" ? [] : key.split(".")
  if (pattern === "") return key === ""
  const matches = (p: number, w: number): boolean => {
    const word = patternWords[p]
    if (word === undefined) return w === words.length
    if (word === "#") return matches(p + 1, w) || (w < words.length && matches(p, w + 1))
    return w < words.length && (word === "*" || word === words[w]) && matches(p + 1, w + 1)
  }
  return matches(0, 0)
}

/** Whether headers match the arguments of a binding to a headers exchange. */
export const matchesHeaders = (spec: ReadonlyArray<Table.Entry>, headers: ReadonlyArray<Table.Entry>): boolean => {
  const kind = Table.text(Table.find(spec, "x-match")) ?? "all"
  const withX = kind.endsWith("-with-x")
  const compared = spec.filter(({ key }) => key !== "x-match" && (withX || !key.startsWith("x-")))
  const matches = (wanted: Table.Entry) => {
    const got = Table.find(headers, wanted.key)
    if (got === undefined) return false
    return wanted.tag === "V" || Table.sameValue(wanted, got)
  }
  return kind.startsWith("any") ? compared.some(matches) : compared.every(matches)
}
