/** What connections have been through: a strip of their states, and a table of the last ones. */
import type { Phase } from "../src/internal/dashboard/events.ts"
import { draw, figure, put, table } from "./elements.ts"
import { axis, follow, pointer, scale, shown, top, type View } from "./view.ts"
import { clock, span, states } from "./words.ts"

const reasonOf = ({ attempt = 0, generation, name, peer, reason = "" }: Phase): string => {
  if (name === "open") return `connection ${generation} to ${peer}`
  if (attempt === 0) return reason
  return `${reason === "" ? "" : `${reason}, `}${attempt} ${attempt === 1 ? "attempt" : "attempts"} failed`
}

/** Makes the figure. The result draws it. */
export const history = (title: string, unit: string, id: string, later: () => void) => {
  const element = figure(title, unit, id)
  const strip = draw("svg", { role: "img" })
  const told = table(["Since", "State", "For", "Why"])
  element.className = "wide"
  element.append(strip, told.element)
  follow(strip, later)

  return (seen: View, phases: ReadonlyArray<Phase>): void => {
    const size = scale(strip, seen)
    const paper = document.createDocumentFragment()
    for (const { end, phase } of shown(phases, seen)) {
      const from = size.x(phase.at)
      const width = Math.max(2, size.x(end) - from)
      const [word, colour] = states[phase.name]
      const place = { x: from, y: top, width, height: size.low - top - 2 }
      paper.append(draw("rect", { ...place, fill: `var(--${colour})` }))
      if (width > word.length * 6.8 + 8) {
        paper.append(draw("text", { class: "on", x: from + 6, y: (top + size.low) / 2 + 3 }, word))
      }
    }
    axis(paper, size, seen)
    pointer(paper, size)
    strip.replaceChildren(paper)
    const now = phases[phases.length - 1]?.name ?? "no data"
    strip.setAttribute("aria-label", `${title}, ${seen.words}. Now: ${now}. Each state is in the table.`)

    const rows = phases.map((phase, i) => ({ phase, end: phases[i + 1]?.at ?? seen.to }))
    const last = rows.slice(-6).reverse()
    last.forEach(({ end, phase }, i) => {
      const [since, name, duration, why] = told.row(i)
      put(since!, clock(phase.at))
      put(name!, ...states[phase.name])
      put(duration!, span(end - phase.at))
      put(why!, reasonOf(phase))
    })
    told.limit(last.length)
  }
}
