/**
 * Finds cycles of a graph: at least one per set of nodes that can reach each other. A cycle is the list of its nodes,
 * with the first one repeated at the end.
 */
export const findCycles = (
  nodes: Iterable<string>,
  next: (node: string) => Iterable<string>
): ReadonlyArray<ReadonlyArray<string>> => {
  const cycles: Array<ReadonlyArray<string>> = []
  const done = new Set<string>()
  for (const start of nodes) {
    if (done.has(start)) continue
    // An explicit stack: a chain may be longer than the depth of JavaScript's call stack.
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
