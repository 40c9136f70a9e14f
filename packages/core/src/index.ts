/** AMQP 0-9-1 for Effect. */
export * as AmqpError from "./AmqpError.ts"
