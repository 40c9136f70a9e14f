/** What the compiler says about a mistake in a consumer: exactly that mistake, and no list of overloads. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "..", "..", "..")

const mistakes: ReadonlyArray<readonly [mistake: string, code: string, says: RegExp]> = [
  [
    "a handler whose input does not fit the schema",
    'AmqpConsumer.consume("q", (order: { id: string }) => Effect.log(order.id), { schema: Order })',
    /Type '\{ readonly id: number; \}' is not assignable to type '\{ id: string; \}'/
  ],
  [
    "a field that the schema does not have",
    'AmqpConsumer.consume("q", (order) => Effect.log(order.name), { schema: Order })',
    /Property 'name' does not exist on type '\{ readonly id: number; \}'/
  ],
  [
    "a misspelled option",
    'AmqpConsumer.consume("q", (order) => Effect.log(order.id), { schema: Order, concurency: 5 })',
    /Did you mean to write 'concurrency'/
  ],
  [
    "a handler that returns no effect",
    'AmqpConsumer.consume("q", (order) => order.id, { schema: Order })',
    /Type 'number' is not assignable to type 'Effect</
  ],
  [
    "an option of another type, without a schema",
    'AmqpConsumer.consume("q", () => Effect.void, { prefetch: "10" })',
    /Type 'string' is not assignable to type 'number'/
  ],
  [
    "a policy for decoding without a schema",
    'AmqpConsumer.consume("q", () => Effect.void, { onDecodeFailure: AmqpConsumer.drop })',
    /Type 'Drop' is not assignable to type 'undefined'/
  ],
  [
    "a batch whose values do not fit the schema",
    'AmqpConsumer.consumeBatch("q", (orders: ReadonlyArray<string>) => Effect.log(orders), { schema: Order, size: 2, within: 1 })',
    /Type '\{ readonly id: number; \}' is not assignable to type 'string'/
  ],
  [
    "a consumer as a layer whose handler does not fit the schema",
    'AmqpConsumer.layerConsume("q", (order: string) => Effect.log(order), { schema: Order })',
    /Type '\{ readonly id: number; \}' is not assignable to type 'string'/
  ]
]

const compile = (): string => {
  const folder = mkdtempSync(join(root, ".readme-"))
  try {
    const lines = mistakes.map(([, code], n) => `export const mistake${n} = () => ${code}`)
    writeFileSync(
      join(folder, "mistakes.ts"),
      [
        'import { AmqpConsumer } from "@effect-amqp/core"',
        'import { Effect, Schema } from "effect"',
        "const Order = Schema.Struct({ id: Schema.Int })",
        ...lines
      ].join("\n")
    )
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({
        extends: "../tsconfig.base.json",
        compilerOptions: {
          noEmit: true,
          composite: false,
          incremental: false,
          declaration: false,
          declarationMap: false,
          rewriteRelativeImportExtensions: false,
          allowImportingTsExtensions: true
        },
        include: ["*.ts"]
      })
    )
    const tsc = join(root, "node_modules", ".bin", "tsc")
    return spawnSync(tsc, ["-p", folder, "--pretty", "false"], { encoding: "utf8" }).stdout
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

describe("The compiler's message", () => {
  // The first three lines are imports and the schema; each message begins with a line `file(line,column)`.
  const messages = compile().split(/^(?=\S.*\(\d+,\d+\): error)/m)

  for (const [n, [mistake, , says]] of mistakes.entries()) {
    it(`about ${mistake} names it, and no overload`, () => {
      const found = messages.filter((message) => message.includes(`mistakes.ts(${n + 4},`)).join("")
      assert.match(found, says)
      assert.notInclude(found, "overload")
    })
  }
})
