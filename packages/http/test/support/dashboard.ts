/** A dashboard under test. */
import { Amqp, type AmqpError } from "@effect-amqp/core"
import { AmqpDashboard } from "@effect-amqp/http"
import { Layer, Metric, References } from "effect"
import { HttpRouter, type HttpServer } from "effect/http"
import { configOf, type Overrides } from "../../../core/test/support/amqp.ts"
import { authorize } from "./gateway.ts"
import { gracefulServer, quiet } from "./server.ts"

export interface Options extends Partial<AmqpDashboard.Options> {
  readonly amqp?: Overrides
  /** The registry in which the dashboard looks for metrics. Default: the global one. */
  readonly registry?: Metric.MetricRegistry
}

/** Allows requests with the token. */
const known: AmqpDashboard.Options["authorize"] = (request) => authorize(request, { action: "consume", queue: "" })

/** Serves a dashboard on a server that shuts down in order. */
export const serve = (
  url: string,
  dashboard: Layer.Layer<never, never, HttpRouter.HttpRouter | Amqp.Amqp>,
  amqp?: Overrides
): Layer.Layer<Amqp.Amqp | HttpServer.HttpServer, AmqpError.AmqpError> =>
  HttpRouter.serve(dashboard, quiet).pipe(
    Layer.provideMerge(gracefulServer()),
    Layer.provideMerge(Amqp.fromConfig(configOf(url, amqp))),
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "None"))
  )

export const serveDashboard = (url: string, { amqp, registry, ...options }: Options = {}) => {
  const dashboard = AmqpDashboard.layer({ authorize: known, ...options })
  return serve(
    url,
    registry === undefined ? dashboard : Layer.provide(dashboard, Layer.succeed(Metric.MetricRegistry, registry)),
    amqp
  )
}
