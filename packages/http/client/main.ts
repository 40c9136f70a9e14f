/**
 * The page's script. It reads the stream of events, keeps the history and draws it at most once per frame. It uses no
 * library, and only features that all browsers support.
 */
import type { Events, Phase, Sample } from "../src/internal/dashboard/events.ts"
import { consumers } from "./consumers.ts"
import * as Counts from "./counts.ts"
import { announce, byId, setText } from "./elements.ts"
import { findings } from "./findings.ts"
import { clock, count, duration, zone } from "./format.ts"
import { history } from "./histories.ts"
import * as Plots from "./plots.ts"
import { otherQueues } from "./queues.ts"
import { freeze, kinds, received, resume, state } from "./state.ts"
import * as Stream from "./stream.ts"
import { tiles } from "./tiles.ts"
import { nearest, present, samplesOf, view } from "./view.ts"

let drawn = 0
const scheduleRender = () => {
  if (drawn === 0) drawn = requestAnimationFrame(render)
}

// --- Figures, in the order of the page ---

const fillFindings = findings()
const fillConsumers = consumers(scheduleRender)
const drawConnection = history("Connection", "pool and publisher", "plot-connection", scheduleRender)
const drawConsumers = history("Consumers’ connection", "while there are consumers", "plot-consumers", scheduleRender)
let figures = 0
const plot = (declared: Plots.Plot) => Plots.plotFigure(declared, `plot-${figures++}`, scheduleRender)
const counts = (declared: Counts.Counts) => Counts.countsFigure(declared, `plot-${figures++}`)
const plots = [Plots.channels, Plots.borrowers, Plots.publisher, Plots.published, Plots.confirming].map(plot)
const tables = [counts(Counts.published)]
plots.push(plot(Plots.consumed), plot(Plots.handling))
tables.push(counts(Counts.channelsAndDeliveries), counts(Counts.failures), counts(Counts.deadLetters))
const fillOthers = otherQueues(`plot-${figures++}`)
const setTiles = tiles()

const last = <A>(all: ReadonlyArray<A>): A | undefined => all[all.length - 1]

const render = () => {
  drawn = 0
  const { data } = state
  const seen = view()
  if (state.pointed !== undefined && state.pointed < seen.from) state.pointed = undefined
  const samples = samplesOf(seen)
  const moment = nearest(samples, state.pointed ?? seen.to)
  for (const draw of plots) draw(seen, samples, moment)
  for (const fill of tables) fill(data.totals, seen.to)
  drawConnection(seen, data.phases)
  drawConsumers(seen, data.consumers)
  setTiles(seen, state.pointed === undefined ? moment : nearest(samples, seen.to))
  fillConsumers(seen.to)
  fillOthers()
  if (data.totals !== undefined) fillFindings(data.totals, seen.to)
  showService(seen.to)
  showStream()
  state.speaking = undefined
}

const showService = (now: number) => {
  const { hello, instance, phases, totals } = state.data
  if (hello.name) setText(byId("name"), `AMQP: ${hello.name}`)
  const phase = last(phases)
  const named = [...phases].reverse().find(({ peer }) => peer)
  if (named !== undefined) {
    setText(byId("peer"), `${phase?.peer ? "" : "last connected to "}${named.product} at ${named.peer}`)
  }
  if (instance !== undefined) {
    const { pid, startedAt, version } = instance
    const parts = [
      ...(version === null ? [] : [`version ${version}`]),
      ...(pid === null ? [] : [`process ${pid}`]),
      `up for ${duration(now - startedAt)}, since ${clock(startedAt)} ${zone()}`
    ]
    setText(byId("service"), parts.join(", "))
  }
  const wrong = (totals?.findings.length ?? 0) + (totals?.moreFindings ?? 0)
  const connection = phase === undefined || phase.name === "open" ? "" : phase.name
  const problems = wrong === 0 ? "open" : `${wrong} ${wrong === 1 ? "problem" : "problems"}`
  const word = status.title === undefined ? connection || problems : words[status.name]
  document.title = `${word} · ${byId("name").textContent}`
}

// --- The stream of events ---

let status: Stream.Status = { name: "connecting" }
/** When the last event arrived, by this machine's clock; 0 before the first one. */
let heardAt = 0

const words: Readonly<Record<Stream.Status["name"], string>> = {
  connecting: "connecting",
  live: "live",
  hidden: "paused while hidden",
  lost: "stream lost",
  "sign in": "sign in again",
  denied: "access denied",
  full: "too many viewers",
  buffered: "no events"
}

const showStream = () => {
  const isProblem = status.title !== undefined
  const isFrozen = state.isFrozen && !isProblem
  setText(
    byId("stream"),
    isFrozen ? `frozen at ${clock(present())}` : words[status.name],
    isFrozen ? "paused" : isProblem ? "lost" : status.name
  )
  byId("lost").hidden = !isProblem
  setText(byId("lost-title"), status.title ?? "")
  setText(byId("lost-text"), status.text ?? "")
  setText(
    byId("age"),
    heardAt > 0
      ? `The values are from ${clock(present())} ${zone()}, ${duration(Date.now() - heardAt)} old.`
      : "No data was received yet."
  )
  byId("again").hidden = status.isFinal !== true
  setText(byId("again"), status.name === "sign in" ? "Reload" : "Try again")
  document.body.classList.toggle("stale", status.name !== "live" && heardAt > 0)
}

const onStatus = (now: Stream.Status) => {
  const before = status
  status = now
  if (now.title !== undefined && now.title !== before.title) announce(`${now.title} ${now.text ?? ""}`)
  if (now.name === "live" && before.title !== undefined) announce("Stream restored.")
  scheduleRender()
}

type Announce = (phase: Phase, before: Phase) => void

const announceConnection: Announce = ({ name, reason }, before) => {
  if (name === "open") announce(before.name === "blocked" ? "The broker accepts messages again." : "Connection open.")
  else if (name === "blocked") announce(`The broker blocks publishers: ${reason}.`)
  else if (name === "closed") announce(`Connection closed permanently: ${reason}.`)
  else announce(`Connection lost: ${reason}. Reconnecting.`)
}

// Consumers that start and stop are not announced.
const announceConsumers: Announce = ({ name, reason }, before) => {
  if (name === "reconnecting") announce(`The consumers’ connection is lost: ${reason}. Reconnecting.`)
  else if (name === "closed") announce(`The consumers’ connection is closed permanently: ${reason}.`)
  else if (name === "open" && before.name === "reconnecting") announce("The consumers’ connection is open.")
}

const mostPhases = 100

/** The phases of a new process are numbered after those of the ones before. */
let offset = 0

const remember = (phases: Array<Phase>, given: Phase, announcePhase: Announce) => {
  const phase = { ...given, number: given.number + offset }
  const before = last(phases)
  if (before !== undefined && phase.number < before.number) return
  if (before?.number === phase.number) phases.pop()
  phases.push(phase)
  if (phases.length > mostPhases) phases.shift()
  if (before !== undefined && before.name !== phase.name && !state.isFrozen) announcePhase(phase, before)
}

/** Keeps what the page knows of the process before, and marks the time between both. */
const follow = (phases: Array<Phase>, after: ReadonlyArray<Phase>, goneAt: number) => {
  if (phases.length > 0) phases.push({ number: offset - 1, at: goneAt, name: "gone" })
  phases.push(...after.map((phase) => ({ ...phase, number: phase.number + offset })))
  phases.splice(0, phases.length - mostPhases)
}

/** When each kind was last announced as full. */
const announcedFull: Array<number> = []

const add = (samples: Array<Sample>, sample: Sample, window: number) => {
  if (sample.at <= (last(samples)?.at ?? -1)) return
  samples.push(sample)
  while (samples[0]!.at < sample.at - window) samples.shift()
}

const listeners: { readonly [Name in keyof Events]: (event: Events[Name]) => void } = {
  hello: (hello) => {
    const { instance, phases, ...settings } = hello
    const before = received.instance
    received.hello = settings
    received.instance = instance
    if (before?.id === instance.id) {
      received.samples.length = received.coarse.length = 0
      const replace = (known: Array<Phase>, all: ReadonlyArray<Phase>) => {
        const earlier = known.filter(({ number }) => number < offset)
        known.splice(0, known.length, ...earlier, ...all.map((phase) => ({ ...phase, number: phase.number + offset })))
      }
      replace(received.phases, phases)
      replace(received.consumers, hello.consumers)
      return
    }
    if (before !== undefined) {
      offset = Math.max(last(received.phases)?.number ?? 0, last(received.consumers)?.number ?? 0) + 2
      announce("The service has started again.")
    }
    const goneAt = Math.min(
      instance.startedAt,
      Math.max(last(received.samples)?.at ?? 0, last(received.coarse)?.at ?? 0)
    )
    follow(received.phases, phases, goneAt)
    follow(received.consumers, hello.consumers, goneAt)
    received.starts.push(instance.startedAt)
    received.starts.splice(0, received.starts.length - 20)
    received.table = received.totals = undefined
  },
  phase: (phase) => remember(received.phases, phase, announceConnection),
  consumers: (phase) => remember(received.consumers, phase, announceConsumers),
  history: (samples) => {
    for (const sample of samples) add(received.coarse, sample, received.hello.coarseWindow)
  },
  coarse: (sample) => add(received.coarse, sample, received.hello.coarseWindow),
  sample: (sample) => {
    const { interval, max, window } = received.hello
    add(received.samples, sample, window + 2 * interval)
    if (state.isFrozen) return
    sample.pools.forEach(([used], i) => {
      if (max === null || used < max || sample.at - (announcedFull[i] ?? 0) < 30_000) return
      announcedFull[i] = sample.at
      announce(`All ${count(max)} ${kinds[i]} channels are in use.`)
    })
  },
  totals: (totals) => {
    received.totals = totals
  },
  table: (table) => {
    received.table = table
  }
}

const stream = Stream.listen({
  listeners,
  onEvents: () => {
    heardAt = Date.now()
    byId("stream").toggleAttribute("data-beat")
    scheduleRender()
  },
  onStatus,
  silence: () => 6 * received.hello.interval
})

// The age of the values grows while no event arrives.
setInterval(() => {
  if (status.name !== "live" && !document.hidden) scheduleRender()
}, 1000)

// --- Controls ---

const press = (id: string, act: () => void) =>
  byId(id).addEventListener("click", () => {
    act()
    scheduleRender()
  })

press("freeze", () => {
  if (state.isFrozen) resume()
  else freeze()
  setText(byId("freeze"), state.isFrozen ? "Resume" : "Freeze")
})
press("zone", () => {
  state.isLocal = !state.isLocal
  setText(byId("zone"), `Times: ${zone()}`)
})
press("range", () => {
  state.isHour = !state.isHour
  state.pointed = undefined
  setText(byId("range"), state.isHour ? "Range: 1 hour" : "Range: 5 minutes")
})
press("again", () => {
  if (status.name === "sign in") location.reload()
  else stream.again()
})

new ResizeObserver(scheduleRender).observe(document.body)
scheduleRender()
