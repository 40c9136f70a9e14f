/** Random integers from a seed, so that a run can be repeated (mulberry32). */
export interface Random {
  /** From 0 to below `bound`. */
  readonly below: (bound: number) => number
  readonly between: (least: number, most: number) => number
  readonly one: <A>(values: ReadonlyArray<A>) => A
}

export const randomOf = (seed: number): Random => {
  let state = seed >>> 0
  const below = (bound: number): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound)
  }
  return {
    below,
    between: (least, most) => least + below(most - least + 1),
    one: (values) => values[below(values.length)]!
  }
}
