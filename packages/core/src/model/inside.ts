/**
 * What stands behind a service, for the library's own parts: the link of a connection, the channels of a publisher, the
 * times that a pool has measured.
 *
 * It is a member of the service, so it goes where the service goes: a copy (`{ ...publisher, publish }`), an object that
 * inherits from the service and a proxy around it have the inside of the original. A service that was made by hand, such as
 * a test's, has none. What is built on that uses its declared members alone: it is not measured, and its channels,
 * declarations and conditions are not known.
 */

/** The member of a service that holds its inside. */
export const InsideId = "~effect-amqp/core/Inside"

/**
 * The inside of a service of one kind: each kind extends this class. Only `of` can read what is in it, so nothing of it
 * appears where a service is logged, compared or serialized.
 */
export abstract class Inside<out Content> {
  readonly #content: Content

  constructor(content: Content) {
    this.#content = content
  }

  /**
   * The inside of a service; undefined if that was made by hand. The member is not trusted: `Layer.mock` answers for each
   * one that it does not have.
   */
  static of<Content>(
    this: new (content: Content) => Inside<Content>,
    service: { readonly [InsideId]?: object | undefined }
  ): Content | undefined {
    const inside = service[InsideId]
    return inside instanceof this ? inside.#content : undefined
  }
}
