//! The files of the status page, as part of the binary. They contain no data, and there is no build step: the browser receives
//! the files of the folder `page` as they are.

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Path, content type and text of each file.
const FILES: [(&str, &str, &str); 13] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/style.css", STYLE, include_str!("page/style.css")),
    ("/page/icon.svg", IMAGE, include_str!("page/icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/api.js", SCRIPT, include_str!("page/api.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/charts.js", SCRIPT, include_str!("page/charts.js")),
    ("/page/status.js", SCRIPT, include_str!("page/status.js")),
    ("/page/failures.js", SCRIPT, include_str!("page/failures.js")),
    ("/page/lists.js", SCRIPT, include_str!("page/lists.js")),
    ("/page/config.js", SCRIPT, include_str!("page/config.js")),
    ("/page/curl.js", SCRIPT, include_str!("page/curl.js")),
    ("/page/explorer.js", SCRIPT, include_str!("page/explorer.js")),
];

/// The content type and text of a file.
pub(super) fn file(path: &str) -> Option<(&'static str, &'static str)> {
    FILES.iter().find(|(name, ..)| *name == path).map(|(_, content_type, text)| (*content_type, *text))
}
