// Installs PostgreSQL for the tests of packages/sql with apt, where there is none: without a cluster of its own and without
// a service. The tests would do that, too, but an installation may take longer than a test waits for its database.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"

ensureDependencies()
run(["--conditions=@effect-amqp/source", "packages/sql/test/support/programs/installPostgresql.ts"])
