/**
 * What only PostgreSQL has: notifications between processes.
 *
 * @since 0.1.0
 */

/**
 * Wakes relays of other processes at once, instead of at their next poll.
 *
 * **When to use**
 *
 * Use when a relay runs in another process than the publishers, and its `pollInterval` is too long a delay.
 *
 * @category modules
 * @since 0.1.0
 */
export * as PgOutbox from "./PgOutbox.ts"
