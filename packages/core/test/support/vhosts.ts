/** A second virtual host, which is another broker to a client. */
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"

/** The URL of another virtual host of the same broker, until the scope closes. */
export const anotherVhost = Effect.gen(function* () {
  const { evaluate, url, vhost } = yield* TestBroker.TestBroker
  const other = `${vhost}-other`
  const user = decodeURIComponent(new URL(url).username || "guest")
  const all = `<<".*">>`
  yield* Effect.acquireRelease(
    evaluate(`
      rabbit_vhost:add(<<"${other}">>, <<"test">>),
      rabbit_auth_backend_internal:set_permissions(<<"${user}">>, <<"${other}">>, ${all}, ${all}, ${all}, <<"test">>).
    `),
    () => Effect.orDie(evaluate(`rabbit_vhost:delete(<<"${other}">>, <<"test">>).`))
  )
  return Object.assign(new URL(url), { pathname: `/${encodeURIComponent(other)}` }).href
})
