import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { durationOf } from "../durations.ts"
import { integer, lazy, options, running } from "./shared.ts"

const queue = Argument.String("queue").pipe(Argument.withDescription("The dead-letter queue"))

/** Which dead letters. A letter has to match every kind of filter that is given. */
const filters = {
  error: options(
    Flag.String("error").pipe(
      Flag.withMetavar("TAG"),
      Flag.withDescription(
        "Only with this error: its tag or name, or the kind of the reason, such as expired. Repeatable"
      )
    )
  ),
  origin: options(
    Flag.String("origin").pipe(
      Flag.withMetavar("QUEUE"),
      Flag.withDescription("Only what failed in this queue. Repeatable")
    )
  ),
  ids: options(
    Flag.String("id").pipe(Flag.withMetavar("ID"), Flag.withDescription("Only this one, as peek shows it. Repeatable"))
  ),
  olderThan: Flag.String("older-than").pipe(
    Flag.withMetavar("DURATION"),
    Flag.withDescription("Only what failed last before that: 30s, 15m, 2h, 7d"),
    Flag.optional
  ),
  deliveryLimit: integer("delivery-limit", { min: -1, max: 2 ** 31 - 1 }).pipe(
    Flag.withDescription("The delivery limit of a quorum queue, if a policy sets it. -1: none. Default: the broker's"),
    Flag.optional
  )
}

interface Filters {
  readonly error: ReadonlyArray<string>
  readonly origin: ReadonlyArray<string>
  readonly ids: ReadonlyArray<string>
  readonly olderThan: Option.Option<string>
  readonly deliveryLimit: Option.Option<number>
}

const filtersOf = ({ deliveryLimit, error, ids, olderThan, origin }: Filters) =>
  Effect.gen(function* () {
    const millis = Option.isNone(olderThan) ? undefined : yield* durationOf("older-than", olderThan.value)
    return { error, origin, ids, olderThan: millis, deliveryLimit: Option.getOrUndefined(deliveryLimit) }
  })

const limit = integer("limit", { min: 1, max: Number.MAX_SAFE_INTEGER }).pipe(
  Flag.withDescription("At most so many. Default: all that were there at the start"),
  Flag.optional
)

const rate = integer("rate", { min: 1, max: 1_000_000 }).pipe(
  Flag.withDescription("At most so many per second"),
  Flag.optional
)

const yes = Flag.Boolean("yes").pipe(
  Flag.withAlias("y"),
  Flag.withDescription("Confirm, for scripts"),
  Flag.withoutNegation,
  Flag.withDefault(false)
)

const dryRun = Flag.Boolean("dry-run").pipe(
  Flag.withDescription("Count what would be done, and do nothing"),
  Flag.withoutNegation,
  Flag.withDefault(false)
)

export const peek = Command.make(
  "peek",
  {
    queue,
    ...filters,
    limit: integer("limit", { min: 1, max: 10_000 }).pipe(
      Flag.withDescription(
        "Read at most so many, from the head of the queue. Filters choose among these. Default: 100"
      ),
      Flag.withDefault(100)
    ),
    full: Flag.Boolean("full").pipe(
      Flag.withDescription("Show headers and contents too, up to 1 MiB of each"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    )
  },
  (flags) =>
    running((context) =>
      Effect.gen(function* () {
        const chosen = yield* filtersOf(flags)
        const { runPeek } = yield* lazy(() => import("../deadLetters/peek.ts"))
        yield* runPeek({ ...context, ...chosen, queue: flags.queue, limit: flags.limit, full: flags.full })
      })
    )
).pipe(
  Command.withShortDescription("Show dead letters, and why they failed"),
  Command.withDescription(
    "Shows what is in a dead-letter queue, grouped by error and origin. Nothing is removed, and the order stays. The messages count as redelivered afterwards, and while a page is read no consumer gets them; on quorum queues before RabbitMQ 4.3 each read counts towards the delivery limit. It sees the first 10,000 messages at most: redrive --dry-run with a filter counts in the whole queue. Reasons count as verified with the secret of the consumers in EFFECT_AMQP_RETRY_SECRET only."
  ),
  Command.withExamples([
    { command: "effect-amqp peek orders.dead" },
    { command: "effect-amqp peek orders.dead --error PaymentRefused --older-than 2h --full" },
    { command: "effect-amqp peek orders.dead --json | jq '.groups[]'" }
  ])
)

/** Runs a redrive or a discard: only `to` and `all` differ. */
const moving = (
  how: "redrive" | "discard",
  flags: Filters & {
    readonly queue: string
    readonly limit: Option.Option<number>
    readonly rate: Option.Option<number>
    readonly dryRun: boolean
    readonly yes: boolean
  },
  own: { readonly to: string | undefined; readonly all: boolean }
) =>
  running((context) =>
    Effect.gen(function* () {
      const chosen = yield* filtersOf(flags)
      const { runMove } = yield* lazy(() => import("../deadLetters/move.ts"))
      yield* runMove({
        ...context,
        ...chosen,
        ...own,
        how,
        queue: flags.queue,
        limit: Option.getOrUndefined(flags.limit),
        rate: Option.getOrUndefined(flags.rate),
        dryRun: flags.dryRun,
        yes: flags.yes
      })
    })
  )

export const redrive = Command.make(
  "redrive",
  {
    queue,
    ...filters,
    limit,
    rate,
    to: Flag.String("to").pipe(
      Flag.withMetavar("QUEUE"),
      Flag.withDescription("Where they go. Default: the queue in which each of them failed"),
      Flag.optional
    ),
    dryRun,
    yes
  },
  (flags) => moving("redrive", flags, { to: Option.getOrUndefined(flags.to), all: false })
).pipe(
  Command.withShortDescription("Bring dead letters back to where they failed"),
  Command.withDescription(
    "Publishes dead letters to the queue in which they failed, confirmed and mandatory, and removes each when its copy is confirmed. Nothing is lost, whenever it is interrupted; possible duplicates are counted. Attempts start again. What is not chosen, or cannot be published, stays in place. With EFFECT_AMQP_RETRY_SECRET, a reason that is not signed names no queue, so that its message needs --to. Source and target are on the same broker and virtual host. Exit code 1 if one could not be published."
  ),
  Command.withExamples([
    {
      command: "effect-amqp redrive orders.dead --error PaymentTimeout --dry-run",
      description: "How many would it be?"
    },
    { command: "effect-amqp redrive orders.dead --error PaymentTimeout --rate 50" },
    { command: "effect-amqp redrive orders.dead --id 7f3a --id 81c0 --yes --json", description: "In a script" }
  ])
)

export const discard = Command.make(
  "discard",
  {
    queue,
    ...filters,
    all: Flag.Boolean("all").pipe(
      Flag.withDescription("All of them, if no filter is given"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    limit,
    rate,
    dryRun,
    yes
  },
  (flags) => moving("discard", flags, { to: undefined, all: flags.all })
).pipe(
  Command.withShortDescription("Remove dead letters for good"),
  Command.withDescription(
    "Removes dead letters after a confirmation. What it removes is gone. It needs a filter, or --all."
  ),
  Command.withExamples([
    { command: "effect-amqp discard orders.dead --older-than 30d --dry-run", description: "How many would it be?" },
    { command: "effect-amqp discard orders.dead --error InvalidOrder" },
    { command: "effect-amqp discard orders.dead --all --yes", description: "In a script" }
  ])
)
