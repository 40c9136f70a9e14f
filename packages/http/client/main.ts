/**
 * What the page does: it listens, remembers what came, and draws that at most once per frame. It uses no library, and only what
 * all browsers know.
 */
import type { Events, Phase } from "../src/internal/dashboard/events.ts"
import * as Counts from "./counts.ts"
import { byId, make, put, say } from "./elements.ts"
import { history } from "./histories.ts"
import * as Plots from "./plots.ts"
import { kinds, state } from "./state.ts"
import { tiles } from "./tiles.ts"
import { nearest, present, view } from "./view.ts"
import { count, span } from "./words.ts"

let drawn = 0
const later = () => {
  if (drawn === 0) drawn = requestAnimationFrame(render)
}

// --- Figures, in the order in which they stand ---

const drawConnection = history("Connection", "of pool and publisher", "plot-connection", later)
const drawConsumers = history("Consumers’ connection", "while there are any", "plot-consumers", later)
let figures = 0
const plot = (declared: Plots.Plot) => Plots.plotFigure(declared, `plot-${figures++}`, later)
const counts = (declared: Counts.Counts) => Counts.countsFigure(declared, `plot-${figures++}`)
const plots = [Plots.channels, Plots.borrowers, Plots.publisher, Plots.published, Plots.confirming].map(plot)
const tables = [counts(Counts.published)]
plots.push(plot(Plots.consumed), plot(Plots.handling))
tables.push(counts(Counts.channelsAndDeliveries))
const setTiles = tiles()

const render = () => {
  drawn = 0
  if (state.pointed !== undefined && state.pointed < view().from) state.pointed = undefined
  const seen = view()
  const samples = state.samples.filter(({ at }) => at >= seen.from && at <= seen.to)
  const moment = nearest(samples, state.pointed ?? seen.to)
  for (const draw of plots) draw(seen, samples, moment)
  for (const fill of tables) fill(state.totals)
  drawConnection(seen, state.phases)
  drawConsumers(seen, state.consumers)
  setTiles(seen, state.pointed === undefined ? moment : nearest(samples, seen.to))
  if (state.hello.name) put(byId("name"), `AMQP: ${state.hello.name}`)
  const last = state.phases[state.phases.length - 1]
  const named = [...state.phases].reverse().find(({ peer }) => peer)
  if (named !== undefined) put(byId("peer"), `${last?.peer ? "" : "last on "}${named.product} at ${named.peer}`)
  document.title = `${state.isLost ? "stream lost" : (last?.name ?? "")} · ${byId("name").textContent}`
}

// --- Listening ---

const showStream = () => {
  const { frozen, heardAt, isLost } = state
  const words = heardAt > 0 ? "live" : "connecting"
  if (isLost) put(byId("stream"), "stream lost", "lost")
  else if (frozen !== undefined) put(byId("stream"), "paused", "paused")
  else put(byId("stream"), words, words)
  byId("lost").hidden = !isLost
  put(byId("age"), heardAt > 0 ? `What is below is ${span(Date.now() - heardAt)} old.` : "Nothing has come yet.")
  document.body.classList.toggle("stale", isLost)
}

const heard = () => {
  state.heardAt = Date.now()
  if (state.isLost) say("The stream is back.")
  state.isLost = false
  showStream()
  later()
}

const lost = () => {
  if (!state.isLost && state.heardAt > 0) say("Stream lost. Trying again.")
  state.isLost = true
  showStream()
  later()
}

type Say = (phase: Phase, before: Phase) => void

const sayOfConnection: Say = ({ name, reason }, before) => {
  if (name === "open") say(before.name === "blocked" ? "The broker takes messages again." : "Connection open.")
  else if (name === "blocked") say(`The broker blocks publishers: ${reason}.`)
  else if (name === "closed") say(`Connection closed for good: ${reason}.`)
  else say(`Connection lost: ${reason}. Reconnecting.`)
}

// That consumers come and go is no news.
const sayOfConsumers: Say = ({ name, reason }, before) => {
  if (name === "reconnecting") say(`The consumers’ connection is lost: ${reason}. Reconnecting.`)
  else if (name === "closed") say(`The consumers’ connection is closed for good: ${reason}.`)
  else if (name === "open" && before.name === "reconnecting") say("The consumers’ connection is open.")
}

const remember = (phases: Array<Phase>, phase: Phase, sayOf: Say) => {
  const last = phases[phases.length - 1]
  if (last !== undefined && phase.number < last.number) return
  if (last?.number === phase.number) phases.pop()
  phases.push(phase)
  if (phases.length > 50) phases.shift()
  if (last !== undefined && last.name !== phase.name) sayOf(phase, last)
}

// Each with its text, which says what has ended and why.
let shownConditions = ""
const showConditions = (conditions: Events["totals"]["conditions"]) => {
  const texts = conditions.map(([kind, message, since, notReady]) => {
    const time = new Date(since).toLocaleTimeString()
    return `${kind} since ${time}: ${message}${notReady ? " (not ready)" : ""}`
  })
  const all = texts.join(" | ")
  if (all === shownConditions) return
  shownConditions = all
  const list = byId("conditions")
  list.hidden = texts.length === 0
  list.replaceChildren(...texts.map((text) => make("li", {}, text)))
  const last = texts[texts.length - 1]
  if (last !== undefined) say(last)
}

/** When each kind was last said to be full. */
const saidFull: Array<number> = []

const listeners: { readonly [Name in keyof Events]: (event: Events[Name]) => void } = {
  hello: (hello) => {
    state.hello = hello
    state.samples = []
    state.phases = [...hello.phases]
    state.consumers = [...hello.consumers]
  },
  phase: (phase) => remember(state.phases, phase, sayOfConnection),
  consumers: (phase) => remember(state.consumers, phase, sayOfConsumers),
  sample: (sample) => {
    const { interval, max, window } = state.hello
    state.samples.push(sample)
    while (state.samples[0]!.at < sample.at - window - 2 * interval) state.samples.shift()
    sample.pools.forEach(([used], i) => {
      if (max === null || used < max || sample.at - (saidFull[i] ?? 0) < 30_000) return
      saidFull[i] = sample.at
      say(`All ${count(max)} ${kinds[i]} channels are in use.`)
    })
  },
  totals: (totals) => {
    state.totals = totals
    if (state.frozen === undefined) showConditions(totals.conditions)
  }
}

const listenTo = <Name extends keyof Events>(source: EventSource, name: Name) =>
  source.addEventListener(name, ({ data }: MessageEvent<string>) => {
    listeners[name](JSON.parse(data) as Events[Name])
    heard()
  })

let source: EventSource
const listen = () => {
  const mine = new EventSource(`${location.pathname.replace(/[/]+$/, "")}/events`)
  source = mine
  for (const name of Object.keys(listeners) as Array<keyof Events>) listenTo(mine, name)
  mine.addEventListener("error", () => {
    lost()
    // It reconnects automatically, unless it was refused.
    if (mine.readyState !== EventSource.CLOSED) return
    setTimeout(() => {
      if (mine === source) listen()
    }, 3000)
  })
}

setInterval(() => {
  if (state.isLost) return showStream()
  // A network that has gone silent reports no error.
  if (state.heardAt > 0 && Date.now() - state.heardAt > 6 * state.hello.interval) {
    source.close()
    lost()
    listen()
  }
}, 1000)

const pause = byId("pause")
pause.addEventListener("click", () => {
  state.frozen = state.frozen === undefined ? present() : undefined
  pause.setAttribute("aria-pressed", String(state.frozen !== undefined))
  showStream()
  later()
})

new ResizeObserver(later).observe(document.body)
listen()
