/** The histories of the connections: a strip of their states, and a table of the latest ones. */
import type { Phase } from "../src/internal/dashboard/events.ts"
import { announce, makeSvg, figure, setText, table } from "./elements.ts"
import { state } from "./state.ts"
import { axis, follow, pointer, scale, shown, top, type View } from "./view.ts"
import { clock, duration, states } from "./format.ts"

const reasonOf = ({ attempt = 0, generation, name, peer, reason = "" }: Phase): string => {
  if (name === "open") return `connection ${generation} to ${peer}`
  if (attempt === 0) return reason
  return `${reason === "" ? "" : `${reason}, `}${attempt} ${attempt === 1 ? "attempt" : "attempts"} failed`
}

/** Makes the figure. The returned function draws it. */
export const history = (title: string, unit: string, id: string, later: () => void) => {
  const element = figure(title, unit, id)
  const strip = makeSvg("svg", { role: "img" })
  const rendered = table(["Since", "State", "Duration", "Reason"])
  element.className = "wide"
  element.append(strip, rendered.element)
  follow(strip, later)

  return (seen: View, phases: ReadonlyArray<Phase>): void => {
    const size = scale(strip, seen)
    const paper = document.createDocumentFragment()
    for (const { end, phase } of shown(phases, seen)) {
      const from = size.x(phase.at)
      const width = Math.max(2, size.x(end) - from)
      const [word, colour] = states[phase.name]
      const place = { x: from, y: top, width, height: size.low - top - 2 }
      paper.append(makeSvg("rect", { ...place, fill: `var(--${colour})` }))
      if (width > word.length * 6.8 + 8) {
        paper.append(makeSvg("text", { class: "on", x: from + 6, y: (top + size.low) / 2 + 3 }, word))
      }
    }
    axis(paper, size, seen)
    pointer(paper, size)
    strip.replaceChildren(paper)
    const now = phases[phases.length - 1]?.name ?? "no data"
    if (state.speaking === strip) {
      state.speaking = undefined
      const at = shown(phases, seen).find(({ end, phase }) => phase.at <= state.pointed! && state.pointed! <= end)
      announce(`${clock(state.pointed!)}: ${at === undefined ? "no data" : states[at.phase.name][0]}.`)
    }
    strip.setAttribute("aria-label", `${title}, ${seen.words}. Now: ${now}. The table lists the latest states.`)

    const rows = phases.map((phase, i) => ({ phase, end: phases[i + 1]?.at ?? seen.to }))
    const last = rows.slice(-6).reverse()
    last.forEach(({ end, phase }, i) => {
      const [since, name, lasted, why] = rendered.row(i)
      setText(since!, clock(phase.at))
      setText(name!, ...states[phase.name])
      setText(lasted!, duration(end - phase.at))
      setText(why!, reasonOf(phase))
    })
    rendered.limit(last.length)
  }
}
