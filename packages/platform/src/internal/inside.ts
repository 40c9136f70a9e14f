/** The core behind a service. The services of an application belong to one core. */
import type { AmqpInside } from "./channels.ts"

const insides = new WeakMap<object, AmqpInside>()

export const register = <Service extends object>(inside: AmqpInside, service: Service): Service => {
  insides.set(service, inside)
  return service
}

const ended = new WeakSet<object>()

/** Marks services as ending: what fails because of it is no failure of its own. */
export const markEnded = (services: object): void => void ended.add(services)

/** Whether the services that a service belongs to are ending. */
export const hasEnded = (service: object): boolean => ended.has(insides.get(service) ?? service)

/** Throws for a service that was made by hand, because it has no core: such a service can replace single operations. */
export const insideOf = (name: string, service: object): AmqpInside => {
  const inside = insides.get(service)
  if (inside === undefined) {
    throw new TypeError(
      `${name}: expected the service of Amqp.layer, got one that was made by hand. Provide Amqp.layer, or call the operations of the service itself.`
    )
  }
  return inside
}
