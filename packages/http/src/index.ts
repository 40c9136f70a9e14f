/** AMQP in Effect's `HttpRouter`: a request borrows a channel, the response's end returns it. */
export * as AmqpDashboard from "./AmqpDashboard.ts"
export * as AmqpGateway from "./AmqpGateway.ts"
export * as AmqpHealth from "./AmqpHealth.ts"
export * as AmqpHttp from "./AmqpHttp.ts"
export * as AmqpHttpError from "./AmqpHttpError.ts"
export * as AmqpHttpApi from "./AmqpHttpApi.ts"
export * as AmqpHttpServer from "./AmqpHttpServer.ts"
export * as AmqpProblem from "./AmqpProblem.ts"
