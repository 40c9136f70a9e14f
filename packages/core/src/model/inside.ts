/**
 * The internal part of a service: the link of a connection, the channels of a publisher, the durations that a pool has
 * measured.
 *
 * It is a member of the service, so it stays with the service: a copy (`{ ...publisher, publish }`), an object that
 * inherits from the service and a proxy around it have the inside of the original. A service that was made by hand,
 * such as a test's, has none. What is built on such a service uses its declared members only: it is not measured, and
 * its channels, declarations and conditions are not known.
 */

/** The member of a service that holds its inside. */
export const InsideId = "~effect-amqp/core/Inside"

/**
 * The inside of one kind of service; each kind extends this class. Only `of` can read the content, so nothing of it
 * appears where a service is logged, compared or serialized.
 */
export abstract class Inside<out Content> {
  readonly #content: Content

  constructor(content: Content) {
    this.#content = content
  }

  /**
   * Returns the inside of a service, or undefined if the service was made by hand. The member is not trusted, because
   * `Layer.mock` returns something for every member that it does not have.
   */
  static of<Content>(
    this: new (content: Content) => Inside<Content>,
    service: { readonly [InsideId]?: object | undefined }
  ): Content | undefined {
    const inside = service[InsideId]
    return inside instanceof this ? inside.#content : undefined
  }
}
