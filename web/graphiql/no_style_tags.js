// Stands for react-style-singleton, which puts <style> into the page: the policy allows style sheets of files only.
// All it is used for is to stop the page from scrolling below a dialog, and this page scrolls on narrow screens only.
export const styleSingleton = () => () => null;
