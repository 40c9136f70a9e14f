/** What the routes of the dead letters ask the application to decide. */

/**
 * What a request asks for, as `authorize` sees it.
 *
 * **When to use**
 *
 * Use in an `authorize` function, to decide by the action and the queue.
 *
 * **Details**
 *
 * `peek` without a queue is the page of all queues, and the OpenAPI document. `publish` is asked in addition to `redrive`
 * when a request chooses where the messages go (`to`); the default exchange is `""`, and its routing key is the name of a
 * queue.
 *
 * @category models
 * @since 0.1.0
 */
export type Access =
  | { readonly action: "peek"; readonly queue: string | undefined }
  | { readonly action: "redrive"; readonly queue: string }
  | { readonly action: "discard"; readonly queue: string }
  | { readonly action: "publish"; readonly exchange: string; readonly routingKey: string }

/**
 * The answer of `authorize`: whether a request may do what it asks for, and who has sent it.
 *
 * **When to use**
 *
 * Use as the success type of an `authorize` effect that is written apart from the call of {@link layer}.
 *
 * **Details**
 *
 * `{ user }` and `"allow"` serve the request; `user` is the name in the audit lines, which say `unknown` otherwise.
 * `"deny"` is answered with 403. `"authenticate"` is answered with 401 and the `WWW-Authenticate` of `challenge`.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision = "allow" | "deny" | "authenticate" | { readonly user: string }
