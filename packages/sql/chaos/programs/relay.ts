/** A relay of the outbox. Its lease is short, so that the other relay takes over soon. */
import { NodeRuntime } from "@effect/platform-node"
import { Amqp } from "@effect-amqp/core"
import { AmqpOutbox } from "@effect-amqp/sql"
import { Layer } from "effect"
import { confirmsEarly } from "../mutants.ts"
import { BrokerLayer, DatabaseLayer, LogLayer, mutant, ReadyLayer } from "./environment.ts"

const Relay = AmqpOutbox.layerRelay({
  lease: "2 seconds",
  pollInterval: "100 millis",
  publishTimeout: "5 seconds"
})

const Broker = mutant === "remove-before-confirm" ? Layer.provideMerge(confirmsEarly, BrokerLayer) : BrokerLayer

Layer.merge(Relay, ReadyLayer).pipe(
  Layer.provide([Broker, DatabaseLayer(4), LogLayer]),
  Amqp.launch,
  NodeRuntime.runMain
)
