/** Words for numbers and states. */
import type { Phase } from "../src/internal/dashboard/events.ts"

/** Each state of a connection: its word, and the colour that goes with it. */
export const states: Readonly<Record<Phase["name"], readonly [word: string, colour: string]>> = {
  connecting: ["connecting", "warn"],
  open: ["open", "good"],
  blocked: ["blocked", "warn"],
  reconnecting: ["reconnecting", "bad"],
  closed: ["closed", "bad"],
  none: ["none", "soft"]
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })
const precise = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 })

export const count = (value: number): string => whole.format(value)

export const rate = (value: number): string => (value > 0 && value < 100 ? tenths : whole).format(value)

/** A time that something took, in milliseconds. */
export const time = (value: number): string =>
  value >= 1000 ? `${precise.format(value / 1000)} s` : `${precise.format(value)} ms`

/** A time that has passed, in milliseconds. A number and its unit are one word. */
export const span = (milliseconds: number): string => {
  const seconds = Math.max(0, Math.round(milliseconds / 1000))
  if (seconds < 60) return `${seconds}\u00a0s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u00a0min ${seconds % 60}\u00a0s`
  return `${Math.floor(seconds / 3600)}\u00a0h ${Math.floor((seconds % 3600) / 60)}\u00a0min`
}

/** The time of day. */
export const clock = (moment: number): string => new Date(moment).toLocaleTimeString("en-GB")
