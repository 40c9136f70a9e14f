/** The plots, each with a table of its numbers. */
import type { Sample } from "../src/internal/dashboard/events.ts"
import { announce, makeSvg, figure, make, setText, table } from "./elements.ts"
import { kinds, state } from "./state.ts"
import { axis, follow, isNext, left, pointer, scale, type Scale, shown, top, type View } from "./view.ts"
import { clock, count, rate, time } from "./format.ts"

interface Series {
  readonly name: string
  /** The value at a sample; `undefined` if there is nothing to report. */
  readonly value: (sample: Sample) => number | undefined
}

/** The declaration of a plot. */
export interface Plot {
  readonly title: string
  readonly unit?: string
  readonly format: (value: number) => string
  /** Up to three series. */
  readonly series: ReadonlyArray<Series>
  /** A further column of the table, with one value per series. */
  readonly idle?: ReadonlyArray<Series>
  /** Shows the maximum number of channels per kind as a line. */
  readonly hasLimit?: boolean
  /** Shows the publisher's flow next to the unit. */
  readonly hasFlow?: boolean
  readonly isLogarithmic?: boolean
}

const ofKinds = (index: 0 | 1 | 2): ReadonlyArray<Series> =>
  kinds.map((name, i) => ({ name, value: ({ pools }) => pools[i]?.[index] }))

const listed = (
  key: "publisher" | "published" | "consumed" | "confirming" | "handling",
  names: ReadonlyArray<string>
): ReadonlyArray<Series> => names.map((name, i) => ({ name, value: (sample) => sample[key]?.[i] }))

const ranks = ["median", "p95", "p99"]

export const channels: Plot = {
  title: "Channels in use",
  unit: "by kind",
  format: count,
  series: ofKinds(0),
  idle: ofKinds(1),
  hasLimit: true
}
export const borrowers: Plot = { title: "Borrowers waiting", unit: "by kind", format: count, series: ofKinds(2) }
export const publisher: Plot = {
  title: "Publisher",
  unit: "messages",
  format: count,
  series: listed("publisher", ["in flight", "waiting"]),
  hasFlow: true
}
export const published: Plot = {
  title: "Published",
  unit: "per second",
  format: rate,
  series: listed("published", ["confirmed", "failed"])
}
export const confirming: Plot = {
  title: "Time to confirm",
  format: time,
  series: listed("confirming", ranks),
  isLogarithmic: true
}
export const consumed: Plot = {
  title: "Consumed",
  unit: "per second",
  format: rate,
  series: listed("consumed", ["delivered", "acknowledged", "otherwise settled"])
}
export const handling: Plot = {
  title: "Time in handlers",
  format: time,
  series: listed("handling", ranks),
  isLogarithmic: true
}

/** Styles of the first, second and third series of a plot. */
const seriesStyles = [
  { colour: "var(--a)", dashes: "", key: "" },
  { colour: "var(--b)", dashes: "6 3", key: " dash" },
  { colour: "var(--c)", dashes: "2 3", key: " dot" }
] as const

/** Maximum number of rows in the table of all values. */
const mostListed = 30

const isKnown = (value: number | undefined): value is number => value !== undefined

/** The end of an axis: the next round number. */
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

// On a linear axis, a value of ten seconds after an outage would flatten all others.
const logarithmic = (least: number, most: number, low: number): Axis => {
  const floor = Math.floor(Math.log10(most > 0 ? Math.max(least, 0.01) : 1))
  const peak = Math.max(floor + 1, Math.ceil(Math.log10(Math.max(most, 0.01))))
  const step = peak - floor > 3 ? 2 : 1
  const ticks: Array<number> = []
  for (let power = floor; power <= peak; power += step) ticks.push(Math.pow(10, power))
  return { ticks, y: (value) => low - ((Math.log10(Math.max(value, 0.01)) - floor) / (peak - floor)) * (low - top) }
}

/** Shades every plot where the connection was not open. */
const shades = (paper: DocumentFragment, size: Scale, seen: View): void => {
  for (const { end, phase } of shown(state.data.phases, seen)) {
    if (phase.name === "open") continue
    const x = size.x(phase.at)
    const place = { x, y: top, width: Math.max(1, size.x(end) - x), height: size.low - top }
    const fill = phase.name === "blocked" ? "var(--warn)" : "var(--shade)"
    paper.append(makeSvg("rect", { ...place, fill, "fill-opacity": 0.13 }))
  }
}

/** The path of a series, and the path of the area below it. A missing sample interrupts both. */
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
    // A single sample becomes a dot.
    path += run === undefined ? `${point}h.1` : point
    if (run === undefined) run = { start: x, end: x }
    else run.end = x
  }
  close()
  return { path, area }
}

/** Makes the figure. The returned function draws the samples, and shows the given sample in the table. */
export const plotFigure = (plot: Plot, id: string, later: () => void) => {
  const { format, hasFlow = false, hasLimit = false, idle, isLogarithmic = false, series, title, unit } = plot
  const element = figure(title, unit, id)
  const small = element.querySelector("small")
  const svg = makeSvg("svg", { role: "img" })
  const numbers = table(["", "now", "lowest", "highest", ...(idle === undefined ? [] : ["idle"])])
  numbers.head[0]!.append(make("span", { class: "vh" }, title))
  const rows = series.map(({ name }, k) => {
    const key = make("span", { class: `key${seriesStyles[k]!.key}`, "aria-hidden": "true" })
    key.style.borderColor = seriesStyles[k]!.colour
    const [heading, ...cells] = numbers.row(k)
    heading!.append(key, name)
    return cells
  })
  const list = table(["Time", ...series.map(({ name }) => name)])
  const details = make("details", {}, make("summary", {}, "All values", make("span", { class: "vh" }, ` of ${title}`)))
  details.append(list.element)
  details.addEventListener("toggle", later)
  element.append(svg, numbers.element, details)
  follow(svg, later)

  /** Fills the table of all values, the latest first. */
  const fillList = (samples: ReadonlyArray<Sample>): void => {
    const step = Math.ceil(samples.length / mostListed)
    const listed = samples.filter((_, i) => (samples.length - 1 - i) % step === 0).reverse()
    listed.forEach((sample, i) => {
      const [heading, ...cells] = list.row(i)
      setText(heading!, clock(sample.at))
      series.forEach(({ value }, k) => {
        const number = value(sample)
        setText(cells[k]!, isKnown(number) ? format(number) : "–")
      })
    })
    list.limit(listed.length)
  }

  /** Fills the table. Returns the sentences that describe the plot to a screen reader. */
  const fill = (samples: ReadonlyArray<Sample>, moment: Sample | undefined): ReadonlyArray<string> =>
    series.map(({ name, value }, k) => {
      const values = samples.map(value).filter(isKnown)
      const now = moment === undefined ? undefined : value(moment)
      const isEmpty = values.length === 0
      const shownNow = isEmpty ? undefined : now
      const cells = rows[k]!
      ;[shownNow, isEmpty ? undefined : Math.min(...values), isEmpty ? undefined : Math.max(...values)].forEach(
        (number, i) => {
          if (isKnown(number)) setText(cells[i]!, format(number), "")
          else setText(cells[i]!, isEmpty ? (i === 0 ? "no data" : "") : "–", "none")
        }
      )
      const resting = moment === undefined ? undefined : idle?.[k]?.value(moment)
      if (idle !== undefined) setText(cells[3]!, isKnown(resting) ? format(resting) : "–")
      return `${name} ${cells[0]!.textContent}`
    })

  return (seen: View, samples: ReadonlyArray<Sample>, moment: Sample | undefined): void => {
    const limit = hasLimit ? (state.data.hello.max ?? undefined) : undefined
    const sentences = [...fill(samples, moment), ...(isKnown(limit) ? [`at most ${count(limit)} per kind`] : [])]
    if (hasFlow && small !== null && state.data.totals !== undefined) {
      setText(small, `messages, ${state.data.totals.flow.toLowerCase()}`)
    }
    if (details.open) fillList(samples)
    if (state.speaking === svg) {
      state.speaking = undefined
      const at =
        moment === undefined ? "no data" : series.map(({ name }, k) => `${name} ${rows[k]![0]!.textContent}`).join(", ")
      announce(`${clock(moment?.at ?? state.pointed ?? seen.to)}: ${at}.`)
    }
    setText(numbers.head[1]!, state.pointed === undefined || moment === undefined ? "now" : clock(moment.at))

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
      paper.append(makeSvg("line", { ...line, stroke: i === 0 ? "var(--line)" : "var(--grid)" }))
      if (most > 0 || isKnown(limit) || (i === 0 && !isLogarithmic)) {
        const place = { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }
        paper.append(makeSvg("text", place, tick === 0 ? "0" : format(tick).replace(",000", "k")))
      }
    })
    if (isKnown(limit)) {
      const line = { x1: left, x2: width, y1: y(limit), y2: y(limit) }
      paper.append(makeSvg("line", { ...line, stroke: "var(--soft)", "stroke-dasharray": "2 4" }))
    }
    // The first series is drawn last, so that it is on top.
    for (let k = series.length - 1; k >= 0; k--) {
      const { area, path } = paths(series[k]!, samples, size, y)
      if (path === "") continue
      const { colour, dashes } = seriesStyles[k]!
      if (k === 0 && !isLogarithmic) paper.append(makeSvg("path", { d: area, fill: colour, "fill-opacity": 0.14 }))
      paper.append(
        makeSvg("path", {
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
      paper.append(makeSvg("text", place, "no data"))
    }
    axis(paper, size, seen)
    pointer(paper, size)
    svg.replaceChildren(paper)
    const name = unit === undefined ? title : `${title}, ${unit}`
    svg.setAttribute("aria-label", `${name}, ${seen.words}. Now: ${sentences.join(", ")}.`)
  }
}
