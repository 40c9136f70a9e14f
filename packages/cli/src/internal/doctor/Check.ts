/** A finding of `doctor`. */
export interface Check {
  /** What was checked. One of a fixed set of words, for scripts. */
  readonly check: "configuration" | "connection" | "certificate" | "broker" | "permission" | "clock" | "topology"
  /** Which one: a setting, an address, a queue. */
  readonly subject: string
  readonly status: "ok" | "warning" | "error"
  readonly message: string
  /** What to do. Every warning and error has one. */
  readonly cure?: string | undefined
}

export const ok = (check: Check["check"], subject: string, message: string): Check => ({
  check,
  subject,
  status: "ok",
  message
})

export const warning = (check: Check["check"], subject: string, message: string, cure: string): Check => ({
  check,
  subject,
  status: "warning",
  message,
  cure
})

export const error = (check: Check["check"], subject: string, message: string, cure: string): Check => ({
  check,
  subject,
  status: "error",
  message,
  cure
})
