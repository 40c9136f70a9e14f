/** The configuration of the consumers' connection. */
import type { AmqpConfig } from "../../model/config.ts"

/** The settings of the consumers' connection, derived from those of the main connection. */
export const ownConfig = (config: AmqpConfig): AmqpConfig => ({
  ...config,
  connectionName: config.connectionName === undefined ? "consumers" : `${config.connectionName} consumers`,
  lazyConnect: true
})
