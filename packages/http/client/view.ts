/** The time range that the page shows, and the positions of moments in a drawing. */
import type { Phase, Sample } from "../src/internal/dashboard/events.ts"
import { makeSvg } from "./elements.ts"
import { state } from "./state.ts"

/** The time range that all plots show. */
export interface View {
  /** Start of the range, in milliseconds of Unix time. */
  readonly from: number
  /** End of the range, in milliseconds of Unix time. */
  readonly to: number
  /** The range in words, for screen readers. */
  readonly words: string
}

const last = <A>(all: ReadonlyArray<A>): A | undefined => all[all.length - 1]

/** The latest moment with data. */
export const present = (): number => {
  const { coarse, phases, samples } = state.data
  return Math.max(last(phases)?.at ?? 0, last(samples)?.at ?? 0, last(coarse)?.at ?? 0)
}

const minute = 60_000

export const view = (): View => {
  const { coarse, hello, samples } = state.data
  const to = present()
  // A short history is shown at a larger scale.
  const age = to - Math.min(samples[0]?.at ?? to, coarse[0]?.at ?? to)
  const ranges = state.isHour ? [10 * minute, 30 * minute, hello.coarseWindow] : [minute, 2 * minute, hello.window]
  const wide = ranges.find((range) => age <= range) ?? ranges[2]!
  const words = wide === minute ? "the last minute" : `the last ${wide / minute} minutes`
  return { from: to - wide, to, words }
}

/**
 * The samples of a view. Where there are samples at the high resolution, those at the low one are left out, and in a
 * view of an hour it is the other way round.
 */
export const samplesOf = (seen: View): ReadonlyArray<Sample> => {
  const { coarse, hello, samples } = state.data
  const { coarseInterval } = hello
  const inView = ({ at }: Sample) => at >= seen.from && at <= seen.to
  if (state.isHour) {
    const end = last(coarse)?.at ?? 0
    return [...coarse.filter(inView), ...samples.filter((sample) => sample.at > end && inView(sample)).slice(-1)]
  }
  const fine = samples.filter(inView)
  const merged: Array<Sample> = []
  let next = 0
  for (const sample of coarse) {
    if (!inView(sample)) continue
    while (next < fine.length && fine[next]!.at <= sample.at) merged.push(fine[next++]!)
    const isCovered =
      (last(merged)?.at ?? 0) > sample.at - coarseInterval / 2 || (fine[next]?.at ?? Infinity) < sample.at + 1500
    if (!isCovered || merged.length === 0) merged.push(sample)
  }
  while (next < fine.length) merged.push(fine[next++]!)
  return merged
}

/** Whether no sample is missing between two samples that are this many milliseconds apart. */
export const isNext = (apart: number): boolean => apart < 2.5 * state.data.hello.coarseInterval

/** The sample closest to a moment, unless samples are missing there. */
export const nearest = (samples: ReadonlyArray<Sample>, moment: number): Sample | undefined => {
  let best: Sample | undefined
  for (const sample of samples) {
    if (best === undefined || Math.abs(sample.at - moment) < Math.abs(best.at - moment)) best = sample
  }
  return best !== undefined && isNext(Math.abs(best.at - moment)) ? best : undefined
}

/** Margins of a plot, in pixels. */
export const left = 46
export const top = 8
const bottom = 16

/** The dimensions of a drawing, in pixels. */
export interface Scale {
  readonly width: number
  readonly height: number
  /** The lower edge of the plot, where the axis begins. */
  readonly low: number
  readonly x: (moment: number) => number
}

export const scale = (svg: SVGSVGElement, seen: View): Scale => {
  const [width, height] = [svg.clientWidth, svg.clientHeight]
  return {
    width,
    height,
    low: height - bottom,
    x: (moment) => left + (Math.max(0, moment - seen.from) / (seen.to - seen.from)) * (width - left)
  }
}

/** Seconds between two labels of the time axis, by the length of the axis in minutes. */
const steps: Readonly<Record<number, number>> = { 1: 20, 2: 30, 5: 60, 10: 120, 30: 600, 60: 900 }

/** Draws the time axis, and the starts of the service. */
export const axis = (paper: DocumentFragment, size: Scale, seen: View): void => {
  const wide = (seen.to - seen.from) / 1000
  const step = steps[wide / 60] ?? wide / 5
  for (let ago = 0; ago < wide; ago += step) {
    const place = { x: size.x(seen.to - ago * 1000), y: size.height - 2, "text-anchor": ago === 0 ? "end" : "middle" }
    paper.append(makeSvg("text", place, ago === 0 ? "now" : `−${ago % 60 === 0 ? `${ago / 60} min` : `${ago} s`}`))
  }
  for (const start of state.data.starts) {
    if (start < seen.from || start > seen.to) continue
    const x = size.x(start)
    paper.append(
      makeSvg("line", { x1: x, x2: x, y1: 0, y2: size.low, stroke: "var(--text)", "stroke-dasharray": "1 2" }),
      // A strip of states has no room for the word.
      ...(size.height > 80
        ? [makeSvg("text", { class: "start", x: Math.min(x + 3, size.width - 30), y: top + 2 }, "start")]
        : [])
    )
  }
}

/** Draws a line at the moment that the user points at. */
export const pointer = (paper: DocumentFragment, size: Scale): void => {
  if (state.pointed === undefined) return
  const x = size.x(state.pointed)
  paper.append(makeSvg("line", { class: "pointer", x1: x, x2: x, y1: top, y2: size.low, stroke: "var(--soft)" }))
}

/** The phases within a view, each with its end. */
export const shown = (
  phases: ReadonlyArray<Phase>,
  seen: View
): ReadonlyArray<{ readonly phase: Phase; readonly end: number }> =>
  phases
    .map((phase, i) => ({ phase, end: Math.min(phases[i + 1]?.at ?? seen.to, seen.to) }))
    .filter(({ end, phase }) => end >= seen.from && phase.at <= seen.to)

/** Moves the moment by this many samples. */
const moveBy = (samples: number) => {
  const seen = view()
  const step = state.isHour ? state.data.hello.coarseInterval : state.data.hello.interval
  const moment = (state.pointed ?? seen.to) + samples * step
  state.pointed = Math.min(seen.to, Math.max(seen.from, moment))
}

const keys: Readonly<Record<string, () => void>> = {
  ArrowLeft: () => moveBy(-1),
  ArrowRight: () => moveBy(1),
  PageDown: () => moveBy(-10),
  PageUp: () => moveBy(10),
  Home: () => moveBy(-Infinity),
  End: () => moveBy(Infinity),
  Escape: () => {
    state.pointed = undefined
  }
}

/**
 * Follows the pointer over a drawing, or the arrow keys on it. All plots and tables then show that moment, and after a
 * key the drawing's values are announced.
 */
export const follow = (svg: SVGSVGElement, later: () => void): void => {
  const look = (event: PointerEvent) => {
    const box = svg.getBoundingClientRect()
    const seen = view()
    const moment = seen.from + ((event.clientX - box.left - left) / (box.width - left)) * (seen.to - seen.from)
    state.pointed = moment > seen.to || moment < seen.from ? undefined : moment
    later()
  }
  const leave = () => {
    state.pointed = undefined
    later()
  }
  svg.setAttribute("tabindex", "0")
  svg.setAttribute("aria-keyshortcuts", Object.keys(keys).join(" "))
  svg.addEventListener("pointermove", look)
  svg.addEventListener("pointerdown", look)
  svg.addEventListener("pointerleave", leave)
  svg.addEventListener("blur", leave)
  svg.addEventListener("keydown", (event) => {
    const act = event.altKey || event.ctrlKey || event.metaKey ? undefined : keys[event.key]
    if (act === undefined) return
    event.preventDefault()
    act()
    state.speaking = state.pointed === undefined ? undefined : svg
    later()
  })
}
