export * from "effect/SubscriptionRef"
