/** The databases that the tests run on: each has its tables already. */
import { AmqpSql } from "@effect-amqp/sql"
import { Effect, FileSystem, Layer } from "effect"
import type { SqlClient } from "effect/sql"
import { NodeFileSystem } from "@effect/platform-node"
import * as TestDatabase from "./TestDatabase.ts"
import * as Sqlite from "./sqlite.ts"

const postgres = AmqpSql.layerMigrate.pipe(Layer.provideMerge(TestDatabase.layer()), Layer.orDie)

const sqlite = AmqpSql.layerMigrate.pipe(
  Layer.provideMerge(
    Layer.unwrap(
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const folder = yield* files.makeTempDirectoryScoped({ prefix: "effect-amqp-" })
        return Sqlite.layer({ filename: `${folder}/test.db` })
      })
    ).pipe(Layer.provide(NodeFileSystem.layer))
  ),
  Layer.orDie
)

/** A layer for each database, by its name. */
export const databases: ReadonlyArray<readonly [name: string, layer: Layer.Layer<SqlClient.SqlClient>]> = [
  ["PostgreSQL", postgres],
  ["SQLite", sqlite]
]
