/** Names that are none of a setting: refused, with the one that was meant. */
import type { Draft } from "./draft.ts"
import { isKey, settingOf } from "./settings.ts"
import { shownName } from "./shown.ts"
import { suggestion } from "./suggestion.ts"

/** The names that there are, in one place where names are written. */
export interface Names {
  /** What such a name is called: "option". */
  readonly noun: string
  /** Every name that is understood. */
  readonly known: Iterable<string>
  /** Those to list, if several mean the same. */
  readonly listed?: Iterable<string>
  /** What stands before a name to say where it is: `pool.`, `?`. */
  readonly prefix?: string
  readonly suffix?: string
}

/** Reports an unknown name. Its value is not shown: it may be a password under a misspelt name. */
export const refuseName = (draft: Draft, names: Names, name: string, value?: unknown): void => {
  // To look for what was meant takes time.
  if (draft.report.isFull) return draft.report.name("", names.noun, `an unknown ${names.noun}`, "")
  const { known, listed = known, noun, prefix = "", suffix = "" } = names
  const meant = suggestion(name, known)
  const keys = meant === undefined ? [] : [meant, `${prefix}${meant}`].filter(isKey)
  if (keys.some((key) => settingOf(key).decoder.secret)) draft.report.keep(value)
  const wants =
    meant === undefined ? `one of ${[...listed].join(", ")}` : `${prefix}${meant}${suffix}, or not to be given`
  const written = shownName(name)
  draft.report.name(written, `${prefix}${written}${suffix}`, `an unknown ${noun}`, wants)
}
