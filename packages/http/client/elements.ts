/** Elements: made and changed without `innerHTML`, so that nothing that the server sends becomes markup. */

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

/** Makes an element of SVG. */
export const draw = <Tag extends keyof SVGElementTagNameMap>(
  tag: Tag,
  attributes: Attributes,
  ...children: ReadonlyArray<Node | string>
): SVGElementTagNameMap[Tag] => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children)

/** An element of `markup.ts`. */
export const byId = (id: string): HTMLElement => {
  const element = document.getElementById(id)
  if (element === null) throw new Error(`no element has the id ${id}`)
  return element
}

/** Sets text and class. What has not changed is left alone: screen readers lose their place otherwise. */
export const put = (element: Element, text: string, className?: string): void => {
  if (element.textContent !== text) element.textContent = text
  if (className !== undefined && element.className !== className) element.className = className
}

/** Says it to those who do not see it. */
export const say = (text: string): void => {
  const log = byId("say")
  log.append(make("p", {}, text))
  while (log.children.length > 5) log.firstChild?.remove()
}

export interface Table {
  readonly element: HTMLTableElement
  /** The cells of its head. */
  readonly head: ReadonlyArray<HTMLTableCellElement>
  /** The cells of a row, which is made when it is asked for first. */
  readonly row: (index: number) => ReadonlyArray<HTMLTableCellElement>
  /** Removes the rows behind these. */
  readonly limit: (rows: number) => void
}

/** A table with a head, and with a heading in each row's first cell. */
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

/** A figure among the plots, named by its title. */
export const figure = (title: string, unit: string | undefined, id: string): HTMLElement => {
  const heading = unit === undefined ? [title] : [`${title} `, make("small", {}, unit)]
  const element = make("figure", { "aria-labelledby": id }, make("h2", { id }, ...heading))
  byId("plots").append(element)
  return element
}
