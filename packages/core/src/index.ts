/** AMQP 0-9-1 for Effect: channels as scoped resources, drawn from a pool. */
export * as Amqp from "./Amqp.ts"
export * as AmqpChannel from "./AmqpChannel.ts"
export * as AmqpConfig from "./AmqpConfig.ts"
export * as AmqpConnection from "./AmqpConnection.ts"
export * as AmqpError from "./AmqpError.ts"
export { AmqpLive } from "./Amqp.ts"
export * as AmqpMessage from "./AmqpMessage.ts"
export * as AmqpPool from "./AmqpPool.ts"
