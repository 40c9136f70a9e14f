// node scripts/sqlMigrations.mjs [--check]: writes the tables of packages/sql as files for other migration tools, or verifies
// that the files are up to date.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { tableMigrations } from "../packages/sql/src/internal/database/migrations.ts"
import { root } from "./dependencies.mjs"

const check = process.argv.includes("--check")
const folders = { pg: "postgresql", sqlite: "sqlite" }
const databases = { pg: "PostgreSQL 14 and later", sqlite: "SQLite 3.42 and later" }

const outdated = []
for (const [dialect, folder] of Object.entries(folders)) {
  const path = join(root, "packages/sql/migrations", folder)
  mkdirSync(path, { recursive: true })
  const files = new Map(
    tableMigrations.map(({ id, name, statements }) => [
      `${String(id).padStart(4, "0")}_${name}.sql`,
      `-- @effect-amqp/sql: ${name}, for ${databases[dialect]}. Apply it once, in a transaction.\n\n${statements[dialect]("amqp_").join(";\n\n")};\n`
    ])
  )
  for (const [file, text] of files) {
    if (!check) writeFileSync(join(path, file), text)
    else if (!readdirSync(path).includes(file) || readFileSync(join(path, file), "utf8") !== text)
      outdated.push(`${folder}/${file}`)
  }
  for (const file of readdirSync(path)) if (!files.has(file)) outdated.push(`${folder}/${file}: expected no such file`)
}

for (const file of outdated)
  console.error(`packages/sql/migrations/${file} is out of date: run node scripts/sqlMigrations.mjs`)
process.exitCode = outdated.length > 0 ? 1 : 0
