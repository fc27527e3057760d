// The page of a client in a browser.
export const show = (runs) => (window.shown = Object.fromEntries(runs));
export const fail = (error) => (window.failed = error.message);
