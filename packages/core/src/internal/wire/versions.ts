/**
 * RabbitMQ's version, as a broker tells it: "RabbitMQ 4.3.6" is a link's `product`. What differs between versions is asked
 * here. Of other products nothing is known: they are neither before nor from any version.
 */

/** The first two numbers of a version of RabbitMQ; undefined for other products. */
export const versionOf = (product: string): readonly [major: number, minor: number] | undefined => {
  const found = /^RabbitMQ (\d+)\.(\d+)/.exec(product)
  return found === null ? undefined : [Number(found[1]), Number(found[2])]
}

/** Whether it is RabbitMQ of this version or a later one. */
export const isFrom = (product: string, major: number, minor: number): boolean => {
  const version = versionOf(product)
  return version !== undefined && (version[0] > major || (version[0] === major && version[1] >= minor))
}

/** Whether it is RabbitMQ of an earlier version. */
export const isBefore = (product: string, major: number, minor: number): boolean =>
  versionOf(product) !== undefined && !isFrom(product, major, minor)
