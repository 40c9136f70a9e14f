/**
 * Cycles of a graph: from every set of nodes that reach each other at least one, each as the nodes passed, the first one
 * again at the end.
 */
export const findCycles = (
  nodes: Iterable<string>,
  next: (node: string) => Iterable<string>
): ReadonlyArray<ReadonlyArray<string>> => {
  const cycles: Array<ReadonlyArray<string>> = []
  const done = new Set<string>()
  for (const start of nodes) {
    if (done.has(start)) continue
    // Its own stack: a chain may be longer than JavaScript's is deep.
    const path: Array<string> = [start]
    const ahead = [next(start)[Symbol.iterator]()]
    const onPath = new Set(path)
    while (path.length > 0) {
      const { done: atEnd, value: node } = ahead.at(-1)!.next()
      if (atEnd === true) {
        const left = path.pop()!
        ahead.pop()
        onPath.delete(left)
        done.add(left)
      } else if (onPath.has(node)) {
        cycles.push([...path.slice(path.indexOf(node)), node])
      } else if (!done.has(node)) {
        path.push(node)
        onPath.add(node)
        ahead.push(next(node)[Symbol.iterator]())
      }
    }
  }
  return cycles
}
