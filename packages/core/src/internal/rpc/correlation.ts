/** Correlation ids: what is a client's own, and a number. */

const separator = "-"

export const correlationIdOf = (prefix: string, number: number): string => prefix + separator + number

/** The number in an id of a client's; of what others have written, any. */
export const numberOf = (correlationId: string): number =>
  Number(correlationId.slice(correlationId.lastIndexOf(separator) + 1)) | 0
