/** Correlation ids: the prefix of a client, and a number. */

const separator = "-"

export const correlationIdOf = (prefix: string, number: number): string => prefix + separator + number

/** The number in a client's correlation id. For an id that another program has made, the result is arbitrary. */
export const numberOf = (correlationId: string): number =>
  Number(correlationId.slice(correlationId.lastIndexOf(separator) + 1)) | 0
