/** How times are printed. */

const quantile = (numbers: ReadonlyArray<number>, of: number) =>
  numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * of))] ?? 0

/** Median and worst, in milliseconds. */
export const shown = (times: ReadonlyArray<number>) =>
  times.length === 0
    ? "-".padStart(7).padEnd(16)
    : `${quantile(times, 0.5).toFixed(0).padStart(7)} ${Math.max(...times)
        .toFixed(0)
        .padStart(8)}`
