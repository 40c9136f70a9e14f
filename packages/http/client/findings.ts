/** The lines on top: what is wrong, since when, and what to do. */
import type { Finding, Totals } from "../src/internal/dashboard/events.ts"
import { announce, byId, make, setName, setText } from "./elements.ts"
import { clock, duration, visible, zone } from "./format.ts"

const sentence = ({ subject, what }: Finding): string => (subject === null ? what : `${visible(subject)}: ${what}`)

interface Line {
  readonly element: HTMLElement
  readonly subject: HTMLElement
  readonly what: HTMLElement
  readonly since: HTMLElement
  readonly todo: HTMLElement
}

const line = (): Line => {
  const [subject, what, since, todo] = [make("span"), make("b"), make("span"), make("span")]
  return { element: make("li", {}, subject, what, " ", since, " ", todo), subject, what, since, todo }
}

const sinceWhen = (since: number | null, now: number): string =>
  since === null ? "" : `since ${clock(since)} ${zone()}, for ${duration(now - since)}.`

/** Makes the lines. The returned function fills them. */
export const findings = () => {
  const list = byId("findings")
  const lines: Array<Line> = []
  let announced: ReadonlySet<string> = new Set()
  const lineAt = (index: number): Line => {
    let present = lines[index]
    if (present === undefined) {
      present = line()
      lines.push(present)
      list.append(present.element)
    }
    return present
  }
  const limit = (most: number) => {
    for (const { element } of lines.splice(most)) element.remove()
  }

  return ({ calmSince, findings, moreFindings }: Totals, now: number): void => {
    findings.forEach((finding, i) => {
      const { element, since, subject, todo, what } = lineAt(i)
      element.className = finding.notReady ? "bad" : "warn"
      if (finding.subject === null) subject.replaceChildren()
      else setName(subject, finding.subject)
      setText(what, `${finding.subject === null ? "" : ": "}${finding.what}${finding.notReady ? " (not ready)" : ""}`)
      setText(since, sinceWhen(finding.since, now))
      setText(todo, finding.todo)
    })
    let shown = findings.length
    if (findings.length === 0) {
      const { element, since, subject, todo, what } = lineAt(shown++)
      element.className = "good"
      subject.replaceChildren()
      setText(what, "Nothing is wrong")
      setText(since, sinceWhen(calmSince, now))
      setText(todo, "")
    } else if (moreFindings > 0) {
      const { element, since, subject, todo, what } = lineAt(shown++)
      element.className = "warn"
      subject.replaceChildren()
      setText(what, `And ${moreFindings} more`)
      setText(since, "")
      setText(todo, "")
    }
    limit(shown)
    // What is wrong is announced when it begins. Its numbers change all the time.
    const keys = new Map(findings.map((finding) => [`${finding.rule} ${finding.subject ?? ""}`, sentence(finding)]))
    for (const [key, text] of keys) if (!announced.has(key)) announce(`${text}.`)
    if (announced.size > 0 && keys.size === 0) announce("Nothing is wrong any more.")
    announced = new Set(keys.keys())
  }
}
