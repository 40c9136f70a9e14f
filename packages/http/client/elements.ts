/** Makes and changes elements without `innerHTML`, so that no text from the server becomes markup. */
import { visible } from "./format.ts"

type Attributes = Readonly<Record<string, string | number>>

const fill = <E extends Element>(element: E, attributes: Attributes, children: ReadonlyArray<Node | string>): E => {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value))
  element.append(...children)
  return element
}

export const make = <Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: ReadonlyArray<Node | string>
): HTMLElementTagNameMap[Tag] => fill(document.createElement(tag), attributes, children)

/** Makes an SVG element. */
export const makeSvg = <Tag extends keyof SVGElementTagNameMap>(
  tag: Tag,
  attributes: Attributes,
  ...children: ReadonlyArray<Node | string>
): SVGElementTagNameMap[Tag] => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children)

/** Returns an element of `markup.ts`. */
export const byId = (id: string): HTMLElement => {
  const element = document.getElementById(id)
  if (element === null) throw new Error(`no element has the id ${id}`)
  return element
}

/** Sets text and class. It writes only changes, because screen readers lose their position otherwise. */
export const setText = (element: Element, text: string, className?: string): void => {
  if (element.textContent !== text) element.textContent = text
  if (className !== undefined && element.className !== className) element.className = className
}

/** Announces a text to screen readers. */
export const announce = (text: string): void => {
  const log = byId("say")
  log.append(make("p", {}, text))
  while (log.children.length > 5) log.firstChild?.remove()
}

/** A longer name is clipped until the user opens it. */
const clippedFrom = 33

/**
 * Shows a name that anyone may have chosen: isolated from the text around it, and clipped if it is long. A click or a
 * key on a clipped name shows all of it. A detail follows the name, and is never clipped.
 */
export const setName = (element: Element, name: string, detail?: string): void => {
  const text = visible(name)
  const rest = detail === undefined ? [] : [`: ${visible(detail)}`]
  if (element.textContent === text + rest.join("") && element.childElementCount === 1) return
  const isolated = make("bdi", {}, text)
  if (text.length < clippedFrom) return element.replaceChildren(isolated, ...rest)
  const button = make("button", { type: "button", class: "name", "aria-expanded": "false", title: text }, isolated)
  button.addEventListener("click", () => {
    button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") === "false"))
  })
  element.replaceChildren(button, ...rest)
}

export interface Table {
  readonly element: HTMLTableElement
  /** The cells of the head. */
  readonly head: ReadonlyArray<HTMLTableCellElement>
  /** Returns the cells of a row. The first call for a row makes it. */
  readonly row: (index: number) => ReadonlyArray<HTMLTableCellElement>
  /** Removes the rows after these. */
  readonly limit: (rows: number) => void
}

/** Makes a table with a head, and with a heading in the first cell of each row. */
export const table = (names: ReadonlyArray<string>): Table => {
  const head = names.map((name) => make("th", { scope: "col" }, name))
  const body = make("tbody")
  const rows: Array<ReadonlyArray<HTMLTableCellElement>> = []
  return {
    element: make("table", {}, make("thead", {}, make("tr", {}, ...head)), body),
    head,
    row: (index) => {
      const known = rows[index]
      if (known !== undefined) return known
      const cells = names.map((_, i) => (i === 0 ? make("th", { scope: "row" }) : make("td")))
      body.append(make("tr", {}, ...cells))
      rows.push(cells)
      return cells
    },
    limit: (most) => {
      for (const [first] of rows.splice(most)) first?.parentElement?.remove()
    }
  }
}

/** Adds a figure to the plots. Its title is its accessible name. */
export const figure = (title: string, unit: string | undefined, id: string): HTMLElement => {
  const heading = unit === undefined ? [title] : [`${title} `, make("small", {}, unit)]
  const element = make("figure", { "aria-labelledby": id }, make("h2", { id }, ...heading))
  byId("plots").append(element)
  return element
}
