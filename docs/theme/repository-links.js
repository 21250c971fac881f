// Links that lead out of docs/ name files of the repository, which the site does not have.
"use strict";

(() => {
  const repository = "https://github.com/portlane/portlane/blob/main/";
  // mdBook gives every page the way to the root of the site, such as "../".
  const outside = `${path_to_root}../`;
  for (const link of document.querySelectorAll("main a[href]")) {
    const target = link.getAttribute("href");
    if (target.startsWith(outside)) {
      // mdBook has changed the names of pages.
      const file = target.slice(outside.length).replace(/\.html(#|$)/, ".md$1");
      link.setAttribute("href", repository + file);
    }
  }
})();
