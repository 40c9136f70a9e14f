/**
 * RabbitMQ's version, as the broker reports it: "RabbitMQ 4.3.6" is a link's `product`. All decisions that depend on
 * the version use these functions. The versions of other products are unknown: they are neither before nor from any
 * version.
 */

/** The first two numbers of a version of RabbitMQ, or undefined for other products. */
export const versionOf = (product: string): readonly [major: number, minor: number] | undefined => {
  const found = /^RabbitMQ (\d+)\.(\d+)/.exec(product)
  return found === null ? undefined : [Number(found[1]), Number(found[2])]
}

/** Whether the product is RabbitMQ of this version or a later one. */
export const isAtLeast = (product: string, major: number, minor: number): boolean => {
  const version = versionOf(product)
  return version !== undefined && (version[0] > major || (version[0] === major && version[1] >= minor))
}

/** Whether the product is RabbitMQ of an earlier version. */
export const isBefore = (product: string, major: number, minor: number): boolean =>
  versionOf(product) !== undefined && !isAtLeast(product, major, minor)
