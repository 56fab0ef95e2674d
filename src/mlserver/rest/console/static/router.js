// Addresses within the page: `#/PAGE/NAME/VERSION?key=value`.

/** @typedef {{page: string, name: string, version: string}} Address */

/** @returns {Address} */
export function parseAddress() {
  const [path] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", name = "", version = ""] = path.split("/").map(part => {
    try { return decodeURIComponent(part); } catch { return part; }
  });
  return { page, name, version };
}

/** @param {string} page @param {string} [name] @param {string} [version] */
export const link = (page, name, version) =>
  `#/${[page, name, version].filter(part => part).map(part => encodeURIComponent(String(part))).join("/")}`;
