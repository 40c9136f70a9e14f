// The API reference from the docstrings, and the site around it and the pages, by TypeDoc.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Application, Converter, KindRouter, ReflectionKind, Renderer } from "typedoc"
import { repository } from "./pages.mjs"

/** What users import, from the packages' manifests: the module's name and its source. */
const entriesOf = (root) =>
  ["packages/core", "packages/http", "packages/sql", "packages/platform"].flatMap((folder) => {
    const { exports, name } = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"))
    return Object.entries(exports).flatMap(([subpath, target]) =>
      target["@effect-amqp/source"] === undefined
        ? []
        : [{ name: posixName(name, subpath), path: join(root, folder, target["@effect-amqp/source"]) }]
    )
  })

const posixName = (name, subpath) => (subpath === "." ? name : `${name}${subpath.slice(1)}`)

/** Types and values have names of their own, so a symbol is a name and one of these. */
const spaceOf = (kind) =>
  kind === ReflectionKind.Interface || kind === ReflectionKind.TypeAlias
    ? "type"
    : kind === ReflectionKind.Namespace || kind === ReflectionKind.Module
      ? "namespace"
      : "value"

/** Writes the site. Gives the symbols that have a page: where each is declared, its name, its kind and its page. */
export const writeSite = async ({ folder, pages, root }) => {
  const entries = entriesOf(root)
  /** Addresses by the names that people know: documents/failure-model.html, modules/core.AmqpChannel.html. */
  class Addresses extends KindRouter {
    getIdealBaseName(reflection) {
      return reflection.kindOf(ReflectionKind.Document)
        ? `documents/${pages.titles.get(reflection.name)}`
        : super.getIdealBaseName(reflection).replace(/\/_effect-amqp_(?=core|http|sql|platform)/, "/")
    }
  }

  const app = await Application.bootstrap({
    name: "effect-amqp",
    basePath: root,
    tsconfig: join(root, "site/tsconfig.json"),
    // tsc -b has checked the types, with the compiler that the packages are built by.
    skipErrorChecking: true,
    entryPoints: entries.map(({ path }) => path),
    readme: pages.start,
    projectDocuments: pages.documents,
    out: folder,
    disableGit: true,
    gitRevision: "main",
    sourceLinkTemplate: `${repository}/blob/{gitRevision}/{path}#L{line}`,
    navigationLinks: { Repository: repository },
    excludeExternals: true,
    excludeInternal: true,
    excludePrivate: true,
    includeVersion: false,
    useFirstParagraphOfCommentAsSummary: true,
    categorizeByGroup: false,
    sort: ["documents-first", "alphabetical"],
    sortEntryPoints: false,
    kindSortOrder: ["Document", "Module", "Namespace", "Class", "Variable", "Function", "Interface", "TypeAlias"],
    navigation: { includeCategories: false, includeGroups: false, includeFolders: false },
    includeHierarchySummary: false,
    searchInComments: true,
    searchInDocuments: true,
    customCss: join(root, "site/style.css"),
    highlightLanguages: [...new Set(["ts", "js", "json", "sh", ...pages.languages])],
    lightHighlightTheme: "light-plus",
    darkHighlightTheme: "dark-plus",
    router: "addresses",
    treatWarningsAsErrors: true,
    validation: { invalidLink: true, invalidPath: true, notExported: false, notDocumented: false, rewrittenLink: true }
  })
  app.renderer.defineRouter("addresses", Addresses)
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const module of project.getChildrenByKind(ReflectionKind.Module)) {
      const entry = entries.find(({ path }) => path === module.sources?.[0]?.fullFileName)
      if (entry !== undefined) module.name = entry.name
    }
  })
  let symbols = []
  app.renderer.on(Renderer.EVENT_END, ({ project }) => {
    const { router } = app.renderer
    symbols = project
      .getReflectionsByKind(ReflectionKind.SomeModule | ReflectionKind.SomeExport)
      .filter((reflection) => reflection.isDeclaration() && reflection.parent?.kindOf(ReflectionKind.SomeModule))
      .map((reflection) => ({
        page: router.hasUrl(reflection) ? router.getFullUrl(reflection) : undefined,
        name: reflection.name,
        space: spaceOf(reflection.kind),
        paths: (reflection.sources ?? []).map(({ fullFileName }) => fullFileName)
      }))
  })
  const project = await app.convert()
  if (project === undefined) throw new Error("TypeDoc could not read the packages")
  app.validate(project)
  await app.generateDocs(project, folder)
  return { symbols, failed: app.logger.hasErrors() || app.logger.hasWarnings() }
}
