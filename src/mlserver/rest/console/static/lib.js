// The libraries under the names that all files use: preact, its hooks, and htm's templates.
import { h, render, Fragment } from "./vendor/preact.js";
import { useState, useEffect, useMemo, useRef, useCallback, useId } from "./vendor/preact-hooks.js";
import htm from "./vendor/htm.js";

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
const html = htm.bind(/** @type {any} */ (h));

export { h, html, render, Fragment, useState, useEffect, useMemo, useRef, useCallback, useId };
