/** The input is wrong. The message names the offending value and the remedy, in one line; the
 * program prints it and ends with exit code 2. */
export class UserError extends Error {}

/** The first line of what a library has to say, without its stack. */
export function firstLine(error) {
  return String(error?.message ?? error).split('\n')[0].slice(0, 200);
}
