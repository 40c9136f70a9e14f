/** Medians and spreads. */

export interface Figure {
  readonly median: number
  /** Half the distance from the lowest to the highest value, as a share of the median. */
  readonly spread: number
}

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

export const figure = (values: ReadonlyArray<number>): Figure => {
  const center = median(values)
  return { median: center, spread: center === 0 ? 0 : (Math.max(...values) - Math.min(...values)) / 2 / center }
}
