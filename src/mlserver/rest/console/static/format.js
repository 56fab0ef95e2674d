// Numbers, durations and times as text with units.

/** Shown in place of a value that is not known. */
export const UNKNOWN = "–";

/** @param {number|null|undefined} value */
const isKnown = value => typeof value === "number" && !Number.isNaN(value);

/** Three significant digits, without an exponent. @param {number} value */
function digits(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  return size >= 10 ? value.toFixed(1) : size >= 0.01 ? value.toFixed(2) : value.toPrecision(1);
}

/** A duration in seconds. @param {number|null|undefined} seconds */
export function duration(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  if (seconds === Infinity) return "> 60 s";
  if (seconds === 0) return "0 ms";
  if (seconds < 0.001) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 120) return Number.isInteger(seconds) ? `${seconds} s` : `${digits(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** Events per second. @param {number|null|undefined} value */
export const rate = value => (isKnown(value) ? `${digits(value)} /s` : UNKNOWN);

/** A count. @param {number|null|undefined} value */
export const count = value => (isKnown(value) ? Math.round(value).toLocaleString("en") : UNKNOWN);

/** A plain number. @param {number|null|undefined} value */
export const number = value => (isKnown(value) ? digits(value) : UNKNOWN);

/** Bytes. @param {number|null|undefined} value */
export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let index = 0;
  while (value >= 1024 && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  return `${index ? digits(value) : value} ${units[index]}`;
}

/** A share of 1. @param {number|null|undefined} value */
export function percent(value) {
  if (!isKnown(value)) return UNKNOWN;
  const shown = value * 100;
  return `${shown === 0 || shown === 100 ? shown : shown < 10 ? shown.toFixed(1) : shown.toFixed(0)} %`;
}

/** Local time of day. @param {number|null|undefined} seconds since the epoch */
export const clock = seconds =>
  isKnown(seconds) ? new Date(seconds * 1000).toLocaleTimeString("en-GB") : UNKNOWN;

/** Local date and time. @param {number|null|undefined} seconds since the epoch */
export function dateTime(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  const date = new Date(seconds * 1000);
  return `${date.toLocaleDateString("en-CA")} ${date.toLocaleTimeString("en-GB")}`;
}

/** How long ago. @param {number|null|undefined} seconds since the epoch @param {number} now */
export const ago = (seconds, now) =>
  isKnown(seconds) ? `${duration(Math.max(0, Math.round(now - seconds)))} ago`.replace("0 ms ago", "now") : UNKNOWN;
