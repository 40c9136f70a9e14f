/** Figures in readable form. */
import type { Figure } from "../statistics.ts"

export const count = (value: number) => Math.round(value).toLocaleString("en")

/** Three digits, or whole numbers. */
export const short = (value: number) => {
  const size = Math.abs(value)
  return size >= 100 ? count(value) : size >= 10 ? value.toFixed(1) : value.toFixed(2)
}

export const spread = ({ spread }: Figure) => `±${(spread * 100).toFixed(0)} %`

export const ratio = (figure: Figure | undefined) => (figure === undefined ? "" : figure.median.toFixed(2))

export const optional = (value: number | undefined) => (value === undefined ? "" : short(value))

export const mebibytes = (bytes: number) => count(bytes / 1_048_576)
