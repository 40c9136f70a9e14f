/** Reports an outbox that needs an operator's attention to health, the dashboard and metrics. */
import { AmqpConnection } from "@effect-amqp/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { OutboxStats } from "./monitor.ts"

/** Returns a report of what stands in the tables. The conditions are cleared when the scope closes. */
export const alarms = (
  table: string,
  alarmMillis: number
): Effect.Effect<(stats: OutboxStats) => Effect.Effect<void>, never, AmqpConnection.AmqpConnection | Scope.Scope> =>
  Effect.gen(function* () {
    const behind = yield* AmqpConnection.conditionReporter
    const setAside = yield* AmqpConnection.conditionReporter
    return (stats) =>
      Effect.andThen(
        stats.oldestAge < alarmMillis
          ? behind.clear
          : behind.report({
              kind: "OutboxBehind",
              message: `${table}: ${stats.waiting} messages wait, the oldest for ${Duration.format(Duration.seconds(Math.floor(stats.oldestAge / 1000)))}`,
              notReady: false
            }),
        stats.setAside === 0
          ? setAside.clear
          : setAside.report({
              kind: "OutboxSetAside",
              message: `${table}: ${stats.setAside} messages could not be published and are set aside. See AmqpOutbox.listSetAside, restore and discard`,
              notReady: false
            })
      )
  })
