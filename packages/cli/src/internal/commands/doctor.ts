import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import { lazy, running } from "./shared.ts"
import { topologyFlag } from "./topologyFile.ts"

export const doctor = Command.make("doctor", { topology: topologyFlag }, ({ topology }) =>
  running((context) =>
    Effect.flatMap(
      lazy(() => import("../doctor/doctor.ts")),
      ({ run }) => run({ ...context, topology: Option.getOrUndefined(topology) })
    )
  )
).pipe(
  Command.withShortDescription("Check configuration, certificates, connection, broker, permissions, clock and queues"),
  Command.withDescription(
    "Checks the configuration, each of the broker's addresses, when certificates expire, the broker's version and alarms, the user's permissions, the clock and, with --topology, exchanges and queues. Every finding is ok, a warning or an error with its cure. It creates two queues of its own, which are exclusive and gone when it ends. Exit code 1 if there is an error. AMQP does not show permissions for other names, policies, bindings, nodes of a cluster, nor how near an alarm is: rabbitmq-diagnostics does."
  ),
  Command.withExamples([
    { command: "effect-amqp doctor", description: "Is everything ready for an application here?" },
    { command: "effect-amqp doctor --topology src/topology.ts", description: "And are its queues as declared?" },
    { command: "effect-amqp doctor --json | jq '.checks[] | select(.status == \"error\")'" }
  ])
)
