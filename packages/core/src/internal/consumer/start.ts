/** How a consumer subscribes. */
import type { ConsumerStart } from "../../model/channel.ts"

/** What is consumed and how, checked already. The consumer tag is not the broker's choice: it has to be known at once. */
export interface Start extends ConsumerStart {
  readonly prefetch: number
  /** In milliseconds, as the consumer states it; undefined: the queue's or the broker's. */
  readonly consumerTimeout: number | undefined
  /** As the consumer states it. */
  readonly queueType: "classic" | "quorum" | "stream" | undefined
}
