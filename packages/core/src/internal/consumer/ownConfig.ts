/** The configuration of the consumers' own connection. */
import type { AmqpConfig } from "../../model/config.ts"

/** The settings of the consumers' connection, from those of the main one. */
export const ownConfig = (config: AmqpConfig): AmqpConfig => ({
  ...config,
  connectionName: config.connectionName === undefined ? "consumers" : `${config.connectionName} consumers`,
  lazyConnect: true
})
