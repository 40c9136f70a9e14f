/**
 * The counts of the pool.
 *
 * Written by scripts/platformModel.mjs from the core's model. Do not edit.
 *
 * @since 0.1.0
 */

/**
 * The counts of one kind of channels in the pool, at one moment.
 *
 * **When to use**
 *
 * Use to see whether the pool is large enough.
 *
 * **Details**
 *
 * `created`, `recycled`, `discarded` and `timedOut` count from the pool's start; the others are the present numbers and
 * bounds.
 *
 * @see {@link ChannelsOf} for the channels that are counted
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Open channels that are not borrowed. */
  readonly idle: number
  /** Pool places that are borrowed. */
  readonly used: number
  /** Borrowers in the wait queue. */
  readonly pending: number
  /** The configured minimum of open channels. */
  readonly min: number
  /** The configured maximum of channels; `Infinity` without pooling. */
  readonly max: number
  /** Channels opened. */
  readonly created: number
  /** Channels closed because of their age or idleness. */
  readonly recycled: number
  /** Returned channels that were closed and not reused: they were dead, or unfit for the next borrower. */
  readonly discarded: number
  /** Borrowers that failed with `AcquireTimeout`. */
  readonly timedOut: number
}
