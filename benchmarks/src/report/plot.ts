/**
 * Bar charts as SVG. They are readable on light and dark pages, since an image follows the reader's color scheme
 * automatically. Each bar is labelled with its figure, so no color has to be distinguished from another.
 */
import * as Format from "./format.ts"
import type { Figure } from "../statistics.ts"

export interface Bar {
  readonly label: string
  /** Whose bar it is: the bars of effect-amqp and those of the base have their own colors. */
  readonly role: "ours" | "base" | "peer"
  /** One figure for each column. */
  readonly figures: ReadonlyArray<Figure | undefined>
}

export interface Panel {
  readonly title: string
  /** The titles of the columns. Each column has its own scale, from 0. */
  readonly columns: ReadonlyArray<string>
  readonly bars: ReadonlyArray<Bar>
}

const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")

/** How a plot is laid out. */
interface Layout {
  readonly width: number
  /** Room for the labels; 0: a label stands above its bars. */
  readonly labels: number
  readonly rowHeight: number
  /** Room for the figure at the end of a bar. */
  readonly figure: number
}

const layouts = {
  /** For a column of a page, about 860 pixels wide. */
  wide: { width: 860, labels: 296, rowHeight: 21, figure: 70 },
  /** For a phone: at 390 pixels its text has 11 pixels or more. */
  narrow: { width: 390, labels: 0, rowHeight: 36, figure: 70 }
} satisfies Record<string, Layout>

const edge = 16
const gap = 24
const lineHeight = 15
const textSize = 12.5
const smallSize = 12

// Without a browser the width of a text is not known. Fonts that stand in for the reader's are up to this wide.
const wideAs = (text: string, size: number) => text.length * size * 0.58

/** Breaks a text into lines, between the parts of a list if it has any, otherwise between words. */
const wrap = (text: string, room: number, size: number): ReadonlyArray<string> => {
  const separator = text.includes(" · ") ? " · " : " "
  const lines: Array<string> = []
  for (const part of text.split(separator)) {
    const longer = lines.length === 0 ? part : `${lines.at(-1)!}${separator}${part}`
    if (lines.length > 0 && wideAs(longer, size) <= room) lines[lines.length - 1] = longer
    else if (separator !== " " && wideAs(part, size) > room) lines.push(...wrap(part, room, size))
    else lines.push(part)
  }
  return lines
}

// Blue, orange and grey differ for every kind of color vision, and by their lightness too. Bars have a contrast of 3 to
// 1 to the page, text of 4.5 to 1.
const style = `
  text { font: ${textSize}px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .page { fill: #ffffff } .title { font-weight: 600 } .small { font-size: ${smallSize}px; fill: #59636e }
  .ours { fill: #0b5cc0 } .base { fill: #b35900 } .peer { fill: #7d8590 } .spread { stroke: #1f2328; stroke-width: 1.5 }
  text.ours { fill: #0b4a9b; font-weight: 600 } text.base, text.peer { fill: #1f2328 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .page { fill: #0d1117 } .small { fill: #9198a1 }
    .ours { fill: #4d9bf5 } .base { fill: #d9822b } .peer { fill: #6e7681 } .spread { stroke: #e6edf3 }
    text.ours { fill: #79b8ff } text.base, text.peer { fill: #e6edf3 }
  }`

const place = (value: number) => Number(value.toFixed(1))

const bar = (x: number, y: number, room: number, most: number, role: Bar["role"], figure: Figure) => {
  const scale = (value: number) => (most === 0 ? 0 : (value / most) * room)
  const length = scale(figure.median)
  const reach = scale(figure.median * figure.spread)
  const middle = y + 7
  const whisker =
    reach < 1
      ? ""
      : `<line class="spread" x1="${place(x + Math.max(0, length - reach))}" x2="${place(x + length + reach)}" y1="${middle}" y2="${middle}"/>`
  return (
    `<rect class="${role}" x="${place(x)}" y="${y}" width="${place(Math.max(1, length))}" height="14" rx="2"/>${whisker}` +
    `<text class="small" x="${place(x + length + Math.max(reach, 0) + 4)}" y="${y + 11}">${Format.short(figure.median)}</text>`
  )
}

const drawn = (panel: Panel, top: number, { figure: roomOfFigure, labels, rowHeight, width }: Layout) => {
  const isNarrow = labels === 0
  const left = isNarrow ? edge : labels
  const columnWidth = (width - left - edge) / panel.columns.length
  const room = columnWidth - roomOfFigure
  let y = top + 12
  const parts: Array<string> = []
  for (const line of wrap(panel.title, width - 2 * edge, textSize)) {
    parts.push(`<text class="title" x="${edge}" y="${y}">${escape(line)}</text>`)
    y += lineHeight
  }
  const heads = panel.columns.map((column) =>
    wideAs(column, smallSize) <= columnWidth - 6
      ? [column]
      : column.split(", ").flatMap((part) => wrap(part, columnWidth - 6, smallSize))
  )
  heads.forEach((lines, i) => {
    lines.forEach((line, k) => {
      parts.push(
        `<text class="small" x="${place(left + i * columnWidth)}" y="${y + 3 + k * lineHeight}">${escape(line)}</text>`
      )
    })
  })
  y += 3 + (Math.max(0, ...heads.map(({ length }) => length)) - 1) * lineHeight + 7
  panel.bars.forEach(({ figures, label, role }, row) => {
    const of = y + row * rowHeight
    const barTop = isNarrow ? of + 18 : of
    // A label that is wider than its room is drawn narrower.
    const fit =
      wideAs(label, textSize) > left - edge ? ` textLength="${left - edge}" lengthAdjust="spacingAndGlyphs"` : ""
    parts.push(
      isNarrow
        ? `<text class="${role}" x="${edge}" y="${of + 13}">${escape(label)}</text>`
        : `<text class="${role}" x="${labels - 8}" y="${of + 11}" text-anchor="end"${fit}>${escape(label)}</text>`
    )
    figures.forEach((figure, column) => {
      if (figure === undefined) return
      const reach = (one: Figure | undefined) => (one === undefined ? 0 : one.median * (1 + one.spread))
      const most = Math.max(...panel.bars.map((other) => reach(other.figures[column])))
      parts.push(bar(left + column * columnWidth, barTop, room, most, role, figure))
    })
  })
  return { svg: parts.join("\n"), bottom: y + panel.bars.length * rowHeight }
}

/** Panels one below the other, and lines that say where the figures come from. */
export const plot = (
  title: string,
  panels: ReadonlyArray<Panel>,
  notes: ReadonlyArray<string>,
  kind: keyof typeof layouts
): string => {
  const layout: Layout = layouts[kind]
  const { width } = layout
  let y = 14
  const parts: Array<string> = []
  for (const panel of panels) {
    const { bottom, svg } = drawn(panel, y, layout)
    parts.push(svg)
    y = bottom + gap
  }
  y -= gap - 18
  for (const note of notes.flatMap((note) => wrap(note, width - 2 * edge, smallSize))) {
    parts.push(`<text class="small" x="${edge}" y="${y}">${escape(note)}</text>`)
    y += lineHeight
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
