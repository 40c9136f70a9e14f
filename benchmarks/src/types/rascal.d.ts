/** The parts of rascal that are used here. It has no types of its own. */
declare module "rascal" {
  import type { EventEmitter } from "node:events"
  import type { Message } from "amqplib"

  export interface Overrides {
    readonly routingKey?: string
    readonly options?: Record<string, unknown>
  }

  export type AckOrNack = (error?: Error) => void

  export interface Subscription extends EventEmitter {
    on(event: "message", listener: (message: Message, content: unknown, ackOrNack: AckOrNack) => void): this
    on(event: string, listener: (...args: Array<never>) => void): this
    cancel(): Promise<void>
  }

  export interface Broker extends EventEmitter {
    publish(publication: string, content: unknown, overrides?: Overrides): Promise<EventEmitter>
    subscribe(subscription: string, overrides?: { readonly prefetch?: number }): Promise<Subscription>
    shutdown(): Promise<void>
  }

  const rascal: {
    readonly BrokerAsPromised: { create(config: unknown): Promise<Broker> }
    withDefaultConfig(config: unknown): unknown
  }
  export default rascal
}
