/**
 * The stream of events: one request at a time, which is repeated unless the server has refused it. An `EventSource`
 * would not say why it has failed.
 */
import type { Events } from "../src/internal/dashboard/events.ts"
import { duration } from "./format.ts"

/** The state of the stream, with what to say about it. */
export interface Status {
  readonly name: "connecting" | "live" | "hidden" | "lost" | "sign in" | "denied" | "full" | "buffered"
  /** What has happened, if it is a problem. */
  readonly title?: string
  /** What it means, and what to do. */
  readonly text?: string
  /** Whether the page does not try again by itself. */
  readonly isFinal?: boolean
}

/** A proxy that buffers holds back even the first event, which the server sends immediately. */
const firstEventMillis = 15_000
const probeMillis = 5000

const lost = (why: string): Status => ({ name: "lost", title: "Stream lost.", text: `${why}Reconnecting.` })

const signIn: Status = {
  name: "sign in",
  title: "Sign in again.",
  text: "The server no longer knows this user: the session has expired. Reload the page to sign in.",
  isFinal: true
}

const denied: Status = {
  name: "denied",
  title: "Access denied.",
  text: "This user may not view the dashboard (403). The page does not try again by itself.",
  isFinal: true
}

const full = (seconds: number): Status => ({
  name: "full",
  title: "Too many viewers.",
  text: `The dashboard has reached its limit of viewers (503). Close other tabs and windows, or raise limits.viewers. The page tries again every ${duration(seconds * 1000)}.`
})

const buffered: Status = {
  name: "buffered",
  title: "No event within 15 s.",
  text: "The server answers, so a proxy on the way probably buffers the stream. Switch buffering off for this path (nginx: proxy_buffering off), and compression of text/event-stream. The page tries again."
}

/** Splits the text of a stream into events. */
const parser = (onEvent: (name: string, data: string) => void) => {
  let text = ""
  return (chunk: string): void => {
    text += chunk
    const blocks = text.split("\n\n")
    text = blocks.pop() ?? ""
    for (const block of blocks) {
      const match = /^event: (.*)\ndata: (.*)$/.exec(block)
      if (match !== null) onEvent(match[1]!, match[2]!)
    }
  }
}

type Listeners = { readonly [Name in keyof Events]: (event: Events[Name]) => void }

/** Listens as long as the page is visible. */
export const listen = (options: {
  readonly listeners: Listeners
  /** Called after the events of a chunk. */
  readonly onEvents: () => void
  readonly onStatus: (status: Status) => void
  /** Milliseconds without an event after which the stream counts as lost. */
  readonly silence: () => number
}) => {
  const path = location.pathname.replace(/[/]+$/, "")
  let current: AbortController | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let failures = 0
  let isFinal = false

  const close = () => {
    clearTimeout(timer)
    current?.abort()
    current = undefined
  }
  const fail = (status: Status, again: number | undefined) => {
    close()
    options.onStatus(status)
    isFinal = status.isFinal === true
    failures++
    if (again !== undefined) timer = setTimeout(open, again)
  }
  const retry = (why = "") => fail(lost(why), Math.min(1000 * (failures + 1), 5000))

  /** Finds out whether only the stream is silent, or the whole server. */
  const probe = async (mine: AbortController) => {
    const stop = setTimeout(() => mine.abort(), probeMillis)
    const isReachable = await fetch(path === "" ? "/" : path, {
      method: "HEAD",
      cache: "no-store",
      redirect: "manual",
      signal: mine.signal
    }).then(
      () => true,
      () => false
    )
    clearTimeout(stop)
    if (mine !== current) return
    if (isReachable) fail(buffered, firstEventMillis)
    else retry()
  }

  const refused = async ({ headers, status, type }: Response): Promise<boolean> => {
    const isStream = (headers.get("content-type") ?? "").startsWith("text/event-stream")
    if (status === 200 && isStream) return false
    // A proxy that asks to sign in redirects to its page, or answers with it.
    if (status === 401 || type === "opaqueredirect" || status === 200) fail(signIn, undefined)
    else if (status === 403) fail(denied, undefined)
    else if (status === 503 && (headers.get("content-type") ?? "").startsWith("application/problem+json")) {
      const seconds = Number(headers.get("retry-after")) || 10
      fail(full(seconds), seconds * 1000)
    } else retry(`The server, or a proxy, answers ${status}. `)
    return true
  }

  const open = async () => {
    close()
    if (document.hidden) return options.onStatus({ name: "hidden" })
    const mine = new AbortController()
    current = mine
    let hasBegun = false
    timer = setTimeout(() => {
      // The request stays open while the server is probed: its answer may still come.
      void probe(mine)
    }, firstEventMillis)
    const feed = parser((name, data) => {
      if (Object.prototype.hasOwnProperty.call(options.listeners, name)) {
        options.listeners[name as keyof Events](JSON.parse(data) as never)
      }
    })
    try {
      const response = await fetch(`${path}/events`, { cache: "no-store", redirect: "manual", signal: mine.signal })
      if (mine !== current || (await refused(response))) return
      const reader = response.body!.getReader()
      const decoder = new TextDecoder()
      for (;;) {
        const { done, value } = await reader.read()
        if (mine !== current) return
        if (done) return retry()
        feed(decoder.decode(value, { stream: true }))
        if (!hasBegun) failures = 0
        hasBegun = true
        clearTimeout(timer)
        // A network that drops everything causes no error.
        timer = setTimeout(retry, options.silence())
        options.onStatus({ name: "live" })
        options.onEvents()
      }
    } catch {
      if (mine === current) retry()
    }
  }

  // A hidden page would hold one of the six connections that a browser opens to a host with HTTP/1.1.
  document.addEventListener("visibilitychange", () => {
    if (isFinal) return
    close()
    if (document.hidden) return options.onStatus({ name: "hidden" })
    failures = 0
    options.onStatus({ name: "connecting" })
    void open()
  })
  void open()
  return {
    /** Tries again immediately. */
    again: () => {
      isFinal = false
      options.onStatus({ name: "connecting" })
      void open()
    }
  }
}
