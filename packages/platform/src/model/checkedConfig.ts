/** A configuration that the core has checked. */
declare const TypeId: unique symbol

/**
 * A checked configuration.
 *
 * **When to use**
 *
 * Use as the type of what `make`, `fromUrl` and `config` produce, and `Amqp.fromConfig` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface AmqpConfig {
  readonly [TypeId]: typeof TypeId
}
