/** How a consumer subscribes. */
import type { ConsumerStart } from "../../model/channel.ts"

/**
 * The checked settings of a subscription. The broker does not choose the consumer tag, because it has to be known
 * before the broker answers.
 */
export interface Start extends ConsumerStart {
  readonly prefetch: number
  /** The consumer timeout in milliseconds, as the consumer sets it; `undefined`: the queue's or the broker's. */
  readonly consumerTimeout: number | undefined
  /** The queue type, as the consumer states it. */
  readonly queueType: "classic" | "quorum" | "stream" | undefined
}
