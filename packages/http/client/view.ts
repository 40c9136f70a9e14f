/** Which stretch of time the page shows, and where its moments are in a drawing. */
import type { Phase, Sample } from "../src/internal/dashboard/events.ts"
import { draw } from "./elements.ts"
import { state } from "./state.ts"

/** What all plots show. */
export interface View {
  /** Milliseconds of Unix time. */
  readonly from: number
  readonly to: number
  readonly words: string
}

/** The newest moment of which something is known. */
export const present = (): number =>
  Math.max(state.phases[state.phases.length - 1]?.at ?? 0, state.samples[state.samples.length - 1]?.at ?? 0)

export const view = (): View => {
  const to = state.frozen ?? present()
  // A history that is short is shown larger.
  const age = to - (state.samples[0]?.at ?? to)
  const wide = age <= 60_000 ? 60_000 : age <= 120_000 ? 120_000 : state.hello.window
  return { from: to - wide, to, words: wide === 60_000 ? "the last minute" : `the last ${wide / 60_000} minutes` }
}

/** Whether two samples, this long apart, have none missing between them. */
export const isNext = (apart: number): boolean => apart < 2.5 * state.hello.interval

/** The sample of a moment. */
export const nearest = (samples: ReadonlyArray<Sample>, moment: number): Sample | undefined => {
  let best: Sample | undefined
  for (const sample of samples) {
    if (best === undefined || Math.abs(sample.at - moment) < Math.abs(best.at - moment)) best = sample
  }
  return best !== undefined && isNext(Math.abs(best.at - moment)) ? best : undefined
}

/** What is kept free around a plot, in pixels. */
export const left = 46
export const top = 8
const bottom = 16

/** A drawing's measures, in pixels. */
export interface Scale {
  readonly width: number
  readonly height: number
  /** Where the plot ends, and the axis begins. */
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

/** Draws the axis of time. */
export const axis = (paper: DocumentFragment, size: Scale, seen: View): void => {
  const wide = (seen.to - seen.from) / 1000
  const step = wide === 60 ? 20 : wide === 120 ? 30 : 60
  for (let ago = 0; ago < wide; ago += step) {
    const place = { x: size.x(seen.to - ago * 1000), y: size.height - 2, "text-anchor": ago === 0 ? "end" : "middle" }
    paper.append(draw("text", place, ago === 0 ? "now" : `−${ago % 60 === 0 ? `${ago / 60} min` : `${ago} s`}`))
  }
}

/** Draws a line where the user points. */
export const pointer = (paper: DocumentFragment, size: Scale): void => {
  if (state.pointed === undefined) return
  const x = size.x(state.pointed)
  paper.append(draw("line", { x1: x, x2: x, y1: top, y2: size.low, stroke: "var(--soft)" }))
}

/** The phases that a view shows, each with its end. */
export const shown = (
  phases: ReadonlyArray<Phase>,
  seen: View
): ReadonlyArray<{ readonly phase: Phase; readonly end: number }> =>
  phases
    .map((phase, i) => ({ phase, end: Math.min(phases[i + 1]?.at ?? seen.to, seen.to) }))
    .filter(({ end, phase }) => end >= seen.from && phase.at <= seen.to)

/** Follows the pointer over a drawing: all plots and tables show the moment at which it is. */
export const follow = (svg: SVGSVGElement, later: () => void): void => {
  const look = (event: PointerEvent) => {
    const box = svg.getBoundingClientRect()
    const seen = view()
    const moment = seen.from + ((event.clientX - box.left - left) / (box.width - left)) * (seen.to - seen.from)
    state.pointed = moment > seen.to || moment < seen.from ? undefined : moment
    later()
  }
  svg.addEventListener("pointermove", look)
  svg.addEventListener("pointerdown", look)
  svg.addEventListener("pointerleave", () => {
    state.pointed = undefined
    later()
  })
}
