/**
 * Bar charts as SVG. Readable on light and dark pages alike, since an image follows the reader's scheme by itself; each
 * bar is labelled with its figure, so no colour has to be told from another.
 */
import * as Format from "./format.ts"
import type { Figure } from "../statistics.ts"

export interface Bar {
  readonly label: string
  /** Whose it is: ours stand out, what they are compared with is told apart. */
  readonly role: "ours" | "base" | "peer"
  /** One for each column. */
  readonly figures: ReadonlyArray<Figure | undefined>
}

export interface Panel {
  readonly title: string
  /** What each column shows. Each has a scale of its own, from 0. */
  readonly columns: ReadonlyArray<string>
  readonly bars: ReadonlyArray<Bar>
}

const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

const width = 860
const labels = 236
const rowHeight = 19
const gap = 24

const style = `
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .page { fill: #ffffff } .title { font-weight: 600 } .small { font-size: 10.5px; fill: #59636e }
  .ours { fill: #1a7f5a } .base { fill: #59636e } .peer { fill: #afb8c1 } .spread { stroke: #1f2328; stroke-opacity: .55 }
  text.ours { fill: #13634a; font-weight: 600 } text.base, text.peer { fill: #1f2328 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .page { fill: #0d1117 } .small { fill: #9198a1 }
    .ours { fill: #3fb68b } .base { fill: #9198a1 } .peer { fill: #4d5560 } .spread { stroke: #e6edf3 }
    text.ours { fill: #56d3a5 } text.base, text.peer { fill: #e6edf3 }
  }`

const bar = (x: number, y: number, room: number, most: number, role: Bar["role"], figure: Figure) => {
  const scale = (value: number) => (most === 0 ? 0 : (value / most) * room)
  const length = scale(figure.median)
  const reach = scale(figure.median * figure.spread)
  const middle = y + 7
  const whisker =
    reach < 1
      ? ""
      : `<line class="spread" x1="${(x + Math.max(0, length - reach)).toFixed(1)}" x2="${(x + length + reach).toFixed(1)}" y1="${middle}" y2="${middle}"/>`
  return (
    `<rect class="${role}" x="${x}" y="${y}" width="${Math.max(1, length).toFixed(1)}" height="14" rx="2"/>${whisker}` +
    `<text class="small" x="${(x + length + Math.max(reach, 0) + 5).toFixed(1)}" y="${y + 11}">${Format.short(figure.median)}</text>`
  )
}

const drawn = (panel: Panel, top: number) => {
  const columnWidth = (width - labels - 16) / panel.columns.length
  const room = columnWidth - 74
  const parts = [`<text class="title" x="16" y="${top + 12}">${escape(panel.title)}</text>`]
  const head = top + 30
  panel.columns.forEach((column, i) => {
    parts.push(`<text class="small" x="${labels + i * columnWidth}" y="${head}">${escape(column)}</text>`)
  })
  panel.bars.forEach(({ figures, label, role }, row) => {
    const y = head + 7 + row * rowHeight
    parts.push(`<text class="${role}" x="${labels - 8}" y="${y + 11}" text-anchor="end">${escape(label)}</text>`)
    figures.forEach((figure, column) => {
      if (figure === undefined) return
      const reach = (one: Figure | undefined) => (one === undefined ? 0 : one.median * (1 + one.spread))
      const most = Math.max(...panel.bars.map((other) => reach(other.figures[column])))
      parts.push(bar(labels + column * columnWidth, y, room, most, role, figure))
    })
  })
  return { svg: parts.join("\n"), bottom: head + 7 + panel.bars.length * rowHeight }
}

/** Panels below each other, and lines that say where the figures come from. */
export const plot = (title: string, panels: ReadonlyArray<Panel>, notes: ReadonlyArray<string>): string => {
  let y = 14
  const parts: Array<string> = []
  for (const panel of panels) {
    const { bottom, svg } = drawn(panel, y)
    parts.push(svg)
    y = bottom + gap
  }
  y -= gap - 18
  for (const note of notes) {
    parts.push(`<text class="small" x="16" y="${y}">${escape(note)}</text>`)
    y += 14
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" role="img" aria-label="${escape(title)}">`,
    `<title>${escape(title)}</title>`,
    `<style>${style}\n</style>`,
    `<rect class="page" width="${width}" height="${y}" rx="6"/>`,
    ...parts,
    "</svg>",
    ""
  ].join("\n")
}
