/** Effect 4's log lines, for Effect 3's loggers. */
import * as Context4 from "@effect-amqp/effect4/Context"
import * as Logger4 from "@effect-amqp/effect4/Logger"
import type * as LogLevel4 from "@effect-amqp/effect4/LogLevel"
import * as References4 from "@effect-amqp/effect4/References"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as HashMap from "effect/HashMap"
import * as List from "effect/List"
import * as LogLevel from "effect/LogLevel"
import * as LogSpan from "effect/LogSpan"
import { toCause3 } from "./exits.ts"

/**
 * The fiber of Effect 3 for which something runs in Effect 4. Its references are read when there is a line to log:
 * reading them copies them, and the fiber waits meanwhile, so they are those of the call.
 */
export type Caller = Pick<Fiber.RuntimeFiber<unknown, unknown>, "getFiberRefs" | "id">

export const Caller: Context4.Reference<Caller> = Context4.Reference<Caller>("@effect-amqp/platform/Caller", {
  defaultValue: () => ({ getFiberRefs: FiberRefs.empty, id: () => FiberId.none as never })
})

const levels: Readonly<Record<LogLevel4.LogLevel, LogLevel.LogLevel>> = {
  All: LogLevel.All,
  Fatal: LogLevel.Fatal,
  Error: LogLevel.Error,
  Warn: LogLevel.Warning,
  Info: LogLevel.Info,
  Debug: LogLevel.Debug,
  Trace: LogLevel.Trace,
  None: LogLevel.None
}

const logger = Logger4.make<unknown, void>(({ cause, date, fiber, logLevel, message }) => {
  const caller = fiber.getRef(Caller)
  const refs = caller.getFiberRefs()
  const level = levels[logLevel]
  if (LogLevel.greaterThan(FiberRefs.getOrDefault(refs, FiberRef.currentMinimumLogLevel), level)) return
  let annotations = FiberRefs.getOrDefault(refs, FiberRef.currentLogAnnotations)
  for (const [key, value] of Object.entries(fiber.getRef(References4.CurrentLogAnnotations))) {
    annotations = HashMap.set(annotations, key, value)
  }
  let spans = FiberRefs.getOrDefault(refs, FiberRef.currentLogSpan)
  for (const [label, startTime] of fiber.getRef(References4.CurrentLogSpans)) {
    spans = List.prepend(spans, LogSpan.make(label, startTime))
  }
  const line = {
    annotations,
    cause: toCause3(cause),
    context: refs,
    date,
    fiberId: caller.id(),
    logLevel: level,
    message,
    spans
  }
  for (const each of FiberRefs.getOrDefault(refs, FiberRef.currentLoggers)) each.log(line)
})

/** What makes Effect 4 log through the caller. Effect 3 decides about levels. */
export const logging: Context4.Context<never> = Context4.make(References4.MinimumLogLevel, "All").pipe(
  Context4.add(Logger4.CurrentLoggers, new Set([logger]))
) as Context4.Context<never>
