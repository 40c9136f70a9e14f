// Installs RabbitMQ for the tests with apt, where there is none, without starting a service. The tests would do that, too,
// but several runs of them at the same time would wait for each other.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"

ensureDependencies()
run(["--conditions=@effect-amqp/source", "packages/core/test/support/installRabbitmq.ts"])
