/** Users of the broker under test. */
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect } from "effect"

let users = 0

/** A user with all permissions in the virtual host of the test, until the scope closes. */
export const make = Effect.fnUntraced(function* (password: string, name = `user-${process.pid}-${++users}`) {
  const { evaluate, vhost } = yield* TestBroker.TestBroker
  const backend = (call: string, ...args: ReadonlyArray<string>) =>
    evaluate(`rabbit_auth_backend_internal:${call}(${[name, ...args, "test"].map((arg) => `<<"${arg}">>`).join(",")}).`)
  const remove = backend("delete_user")
  /** Sets the patterns of what the user may configure, write and read. */
  const permit = (configure: string, write: string, read: string) =>
    backend("set_permissions", vhost, configure, write, read)
  yield* Effect.acquireRelease(backend("add_user", password), () => Effect.ignore(remove))
  yield* permit(".*", ".*", ".*")
  return {
    name,
    permit,
    /** Revokes all permissions in this virtual host. */
    clearPermissions: backend("clear_permissions", vhost),
    /** The maximum number of channels, on all connections of the user together. */
    limitChannels: (most: number) =>
      evaluate(
        `rabbit_auth_backend_internal:set_user_limits(<<"${name}">>, <<"{\\"max-channels\\": ${most}}">>, <<"test">>).`
      ),
    changePassword: (password: string) => backend("change_password", password),
    /** The number of connections of the user that the broker would close with the user. */
    tracked: evaluate(`length(rabbit_connection_tracking:list_of_user(<<"${name}">>)).`),
    delete: remove,
    /** Creates the user again after `delete`, as at first. */
    restore: Effect.andThen(backend("add_user", password), permit(".*", ".*", ".*"))
  }
})
