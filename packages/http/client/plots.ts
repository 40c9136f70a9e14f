/** The plots, each with a table of its numbers. */
import type { Sample } from "../src/internal/dashboard/events.ts"
import { draw, figure, make, put, table } from "./elements.ts"
import { kinds, state } from "./state.ts"
import { axis, follow, isNext, left, pointer, scale, type Scale, shown, top, type View } from "./view.ts"
import { clock, count, rate, time } from "./words.ts"

interface Series {
  readonly name: string
  /** `undefined`: there is nothing to report of that moment. */
  readonly value: (sample: Sample) => number | undefined
}

/** A plot, as it is declared. */
export interface Plot {
  readonly title: string
  readonly unit?: string
  readonly format: (value: number) => string
  /** Up to three. */
  readonly series: ReadonlyArray<Series>
  /** A further column of the table: a value for each series. */
  readonly idle?: ReadonlyArray<Series>
  /** Shows the most channels of a kind as a line. */
  readonly hasLimit?: boolean
  /** Shows what holds publishers up as its unit. */
  readonly hasFlow?: boolean
  readonly isLogarithmic?: boolean
}

const ofKinds = (index: 0 | 1 | 2): ReadonlyArray<Series> =>
  kinds.map((name, i) => ({ name, value: ({ pools }) => pools[i]?.[index] }))

const listed = (
  key: "publisher" | "published" | "consumed" | "confirming" | "handling",
  names: ReadonlyArray<string>
): ReadonlyArray<Series> => names.map((name, i) => ({ name, value: (sample) => sample[key]?.[i] }))

const ranks = ["median", "95 %", "99 %"]

export const channels: Plot = {
  title: "Channels in use",
  unit: "by kind",
  format: count,
  series: ofKinds(0),
  idle: ofKinds(1),
  hasLimit: true
}
export const borrowers: Plot = { title: "Borrowers in line", unit: "by kind", format: count, series: ofKinds(2) }
export const publisher: Plot = {
  title: "Publisher",
  unit: "messages",
  format: count,
  series: listed("publisher", ["on their way", "in line"]),
  hasFlow: true
}
export const published: Plot = {
  title: "Published",
  unit: "a second",
  format: rate,
  series: listed("published", ["confirmed", "failed"])
}
export const confirming: Plot = {
  title: "Time to the confirm",
  format: time,
  series: listed("confirming", ranks),
  isLogarithmic: true
}
export const consumed: Plot = {
  title: "Consumed",
  unit: "a second",
  format: rate,
  series: listed("consumed", ["delivered", "acknowledged", "otherwise settled"])
}
export const handling: Plot = {
  title: "Time in handlers",
  format: time,
  series: listed("handling", ranks),
  isLogarithmic: true
}

/** How the first, second and third series of a plot look. */
const looks = [
  { colour: "var(--a)", dashes: "", key: "" },
  { colour: "var(--b)", dashes: "6 3", key: " dash" },
  { colour: "var(--c)", dashes: "2 3", key: " dot" }
] as const

const isKnown = (value: number | undefined): value is number => value !== undefined

/** The end of an axis: a round number that is not less. */
const nice = (value: number): number => {
  if (!(value > 0)) return 1
  const power = Math.pow(10, Math.floor(Math.log10(value)))
  const part = value / power
  return ([1, 2, 4, 6, 8].find((end) => part <= end) ?? 10) * power
}

interface Axis {
  readonly ticks: ReadonlyArray<number>
  readonly y: (value: number) => number
}

const linear = (peak: number, isWhole: boolean, low: number): Axis => ({
  ticks: peak === 1 && isWhole ? [0, 1] : [0, peak / 2, peak],
  y: (value) => low - (value / peak) * (low - top)
})

// On a linear axis, what takes ten seconds after an outage would make all the rest flat.
const logarithmic = (least: number, most: number, low: number): Axis => {
  const floor = Math.floor(Math.log10(most > 0 ? Math.max(least, 0.01) : 1))
  const peak = Math.max(floor + 1, Math.ceil(Math.log10(Math.max(most, 0.01))))
  const step = peak - floor > 3 ? 2 : 1
  const ticks: Array<number> = []
  for (let power = floor; power <= peak; power += step) ticks.push(Math.pow(10, power))
  return { ticks, y: (value) => low - ((Math.log10(Math.max(value, 0.01)) - floor) / (peak - floor)) * (low - top) }
}

/** Where the connection was not open, every plot has a shade. */
const shades = (paper: DocumentFragment, size: Scale, seen: View): void => {
  for (const { end, phase } of shown(state.phases, seen)) {
    if (phase.name === "open") continue
    const x = size.x(phase.at)
    const place = { x, y: top, width: Math.max(1, size.x(end) - x), height: size.low - top }
    const fill = phase.name === "blocked" ? "var(--warn)" : "var(--shade)"
    paper.append(draw("rect", { ...place, fill, "fill-opacity": 0.13 }))
  }
}

/** The path of a series, and that of the area below it. A sample that is missing interrupts both. */
const paths = ({ value }: Series, samples: ReadonlyArray<Sample>, size: Scale, y: Axis["y"]) => {
  let path = ""
  let area = ""
  let run: { readonly start: string; end: string } | undefined
  let before = -Infinity
  const close = () => {
    if (run !== undefined) area += `L${run.end} ${size.low}L${run.start} ${size.low}Z`
    run = undefined
  }
  for (const sample of samples) {
    const number = value(sample)
    if (!isKnown(number) || !isNext(sample.at - before)) close()
    before = sample.at
    if (!isKnown(number)) continue
    const x = size.x(sample.at).toFixed(1)
    const point = `${run === undefined ? "M" : "L"}${x} ${y(number).toFixed(1)}`
    area += point
    // A single sample is a dot.
    path += run === undefined ? `${point}h.1` : point
    if (run === undefined) run = { start: x, end: x }
    else run.end = x
  }
  close()
  return { path, area }
}

/** Makes the figure. The result draws it: with these samples, and with that of the moment in its table. */
export const plotFigure = (plot: Plot, id: string, later: () => void) => {
  const { format, hasFlow = false, hasLimit = false, idle, isLogarithmic = false, series, title, unit } = plot
  const element = figure(title, unit, id)
  const small = element.querySelector("small")
  const svg = draw("svg", { role: "img" })
  const numbers = table(["", "now", "lowest", "highest", ...(idle === undefined ? [] : ["idle"])])
  numbers.head[0]!.append(make("span", { class: "vh" }, title))
  const rows = series.map(({ name }, k) => {
    const key = make("span", { class: `key${looks[k]!.key}`, "aria-hidden": "true" })
    key.style.borderColor = looks[k]!.colour
    const [heading, ...cells] = numbers.row(k)
    heading!.append(key, name)
    return cells
  })
  element.append(svg, numbers.element)
  follow(svg, later)

  /** Fills the table. The result is what a screen reader says of the plot. */
  const fill = (samples: ReadonlyArray<Sample>, moment: Sample | undefined): ReadonlyArray<string> =>
    series.map(({ name, value }, k) => {
      const values = samples.map(value).filter(isKnown)
      const now = moment === undefined ? undefined : value(moment)
      const isEmpty = values.length === 0
      const shownNow = isEmpty ? undefined : now
      const cells = rows[k]!
      ;[shownNow, isEmpty ? undefined : Math.min(...values), isEmpty ? undefined : Math.max(...values)].forEach(
        (number, i) => {
          if (isKnown(number)) put(cells[i]!, format(number), "")
          else put(cells[i]!, isEmpty ? (i === 0 ? "no data" : "") : "–", "none")
        }
      )
      const resting = moment === undefined ? undefined : idle?.[k]?.value(moment)
      if (idle !== undefined) put(cells[3]!, isKnown(resting) ? format(resting) : "–")
      return `${name} ${cells[0]!.textContent}`
    })

  return (seen: View, samples: ReadonlyArray<Sample>, moment: Sample | undefined): void => {
    const limit = hasLimit ? (state.hello.max ?? undefined) : undefined
    const sentences = [...fill(samples, moment), ...(isKnown(limit) ? [`at most ${count(limit)} of each kind`] : [])]
    if (hasFlow && small !== null && state.totals !== undefined) {
      put(small, `messages, ${state.totals.flow.toLowerCase()}`)
    }
    put(numbers.head[1]!, state.pointed === undefined || moment === undefined ? "now" : clock(moment.at))

    const values = series.flatMap(({ value }) => samples.map(value).filter(isKnown))
    const most = Math.max(0, ...values)
    const size = scale(svg, seen)
    const { low, width } = size
    const isWhole = format === count
    const { ticks, y } = isLogarithmic
      ? logarithmic(Math.min(...values), most, low)
      : linear(nice(Math.max(most, limit ?? 0) || (isWhole ? 1 : 0)), isWhole, low)

    const paper = document.createDocumentFragment()
    shades(paper, size, seen)
    ticks.forEach((tick, i) => {
      const line = { x1: left, x2: width, y1: y(tick), y2: y(tick) }
      paper.append(draw("line", { ...line, stroke: i === 0 ? "var(--line)" : "var(--grid)" }))
      if (most > 0 || isKnown(limit) || (i === 0 && !isLogarithmic)) {
        const place = { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }
        paper.append(draw("text", place, tick === 0 ? "0" : format(tick).replace(",000", "k")))
      }
    })
    if (isKnown(limit)) {
      const line = { x1: left, x2: width, y1: y(limit), y2: y(limit) }
      paper.append(draw("line", { ...line, stroke: "var(--soft)", "stroke-dasharray": "2 4" }))
    }
    // The first series is drawn last, above the others.
    for (let k = series.length - 1; k >= 0; k--) {
      const { area, path } = paths(series[k]!, samples, size, y)
      if (path === "") continue
      const { colour, dashes } = looks[k]!
      if (k === 0 && !isLogarithmic) paper.append(draw("path", { d: area, fill: colour, "fill-opacity": 0.14 }))
      paper.append(
        draw("path", {
          d: path,
          fill: "none",
          stroke: colour,
          "stroke-width": 1.8,
          "stroke-linejoin": "round",
          "stroke-linecap": dashes === "" ? "round" : "butt",
          "stroke-dasharray": dashes
        })
      )
    }
    if (values.length === 0) {
      const place = { x: left + (width - left) / 2, y: (top + low) / 2 + 4, "text-anchor": "middle" }
      paper.append(draw("text", place, "no data"))
    }
    axis(paper, size, seen)
    pointer(paper, size)
    svg.replaceChildren(paper)
    const name = unit === undefined ? title : `${title}, ${unit}`
    svg.setAttribute("aria-label", `${name}, ${seen.words}. Now: ${sentences.join(", ")}.`)
  }
}
