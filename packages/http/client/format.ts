/** Formats numbers, durations, times, names and states. */
import type { ConsumerRow, Phase } from "../src/internal/dashboard/events.ts"
import { state } from "./state.ts"

/** The word and the color for each state of a connection. */
export const states: Readonly<Record<Phase["name"], readonly [word: string, colour: string]>> = {
  connecting: ["connecting", "warn"],
  open: ["open", "good"],
  blocked: ["blocked", "warn"],
  reconnecting: ["reconnecting", "bad"],
  closed: ["closed", "bad"],
  none: ["none", "soft"],
  gone: ["service gone", "soft"]
}

/** The words and the color for each state of consumers. */
export const consumerStates: Readonly<Record<ConsumerRow["state"], readonly [words: string, colour: string]>> = {
  running: ["running", "good"],
  starting: ["starting", "warn"],
  reconnecting: ["reconnecting", "warn"],
  waiting: ["waiting for its queue", "warn"],
  ended: ["ended", "bad"],
  stopped: ["stopped", "soft"]
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })
const precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 })

export const count = (value: number): string => whole.format(value)

export const rate = (value: number): string => (value > 0 && value < 100 ? tenths : whole).format(value)

/** Formats how long an operation took, given in milliseconds. */
export const time = (value: number): string =>
  value >= 1000 ? `${precise.format(value / 1000)} s` : `${precise.format(value)} ms`

/** Formats elapsed time, given in milliseconds. A no-break space keeps a number and its unit together. */
export const duration = (milliseconds: number): string => {
  const seconds = Math.max(0, Math.round(milliseconds / 1000))
  if (seconds < 60) return `${seconds}\u00a0s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u00a0min ${seconds % 60}\u00a0s`
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}\u00a0h ${Math.floor((seconds % 3600) / 60)}\u00a0min`
  return `${Math.floor(seconds / 86_400)}\u00a0days`
}

const two = (value: number) => String(value).padStart(2, "0")

/** A date whose UTC fields are those of the zone that the page shows. */
const inZone = (moment: number) =>
  new Date(state.isLocal ? moment - new Date(moment).getTimezoneOffset() * 60_000 : moment)

const dayOf = (date: Date) => date.toISOString().slice(0, 10)

/** Formats the time of day, with the date if that is not today's. */
export const clock = (moment: number): string => {
  const date = inZone(moment)
  const time = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`
  return dayOf(date) === dayOf(inZone(Date.now())) ? time : `${dayOf(date)} ${time}`
}

/** The name of the zone that the page shows. */
export const zone = (): string => {
  if (!state.isLocal) return "UTC"
  const ahead = -new Date().getTimezoneOffset()
  const [hours, minutes] = [Math.floor(Math.abs(ahead) / 60), Math.abs(ahead) % 60]
  const offset = `UTC${ahead < 0 ? "−" : "+"}${hours}${minutes === 0 ? "" : `:${two(minutes)}`}`
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone
  return name === undefined || name === "UTC" ? offset : `${name} (${offset})`
}

/** Shows characters of a name that would be invisible, or would change the direction of the text. */
export const visible = (name: string): string =>
  name.replace(
    // oxlint-disable-next-line no-control-regex
    /[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )
