//! The page that follows forwards while they run: the files that a browser loads, their headers, and whose requests are
//! answered. The admin address of a proxy serves the page for that proxy, and the plugin of kubectl serves it for a
//! cluster.
//!
//! The page reads `events`, a stream of states and notices, and `conns`, a list of sessions, both relative to its own
//! address. Each program has types of its own for them: `proxy::core::control::page`, and `kubectl_core::page`, whose states have
//! every field of a proxy's state. The fields are no interface for other programs.
//!
//! The crate depends on nothing: the proxy knows no Kubernetes, and the plugin needs nothing else of the proxy for this.

pub mod request;

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Path, relative to the address of the page.
    pub path: &'static str,
    /// Value of the header `Content-Type`.
    pub content_type: &'static str,
    /// All of the file.
    pub content: &'static str,
}

/// The files. The page needs nothing else, so that it works without the internet.
pub const FILES: [File; 3] = [
    File { path: "/", content_type: "text/html; charset=utf-8", content: include_str!("index.html") },
    File { path: "/page.css", content_type: "text/css; charset=utf-8", content: include_str!("page.css") },
    File { path: "/page.js", content_type: "text/javascript; charset=utf-8", content: include_str!("page.js") },
];

/// Only files of this address run and are read, no text becomes markup, and no other page shows this one in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// The headers of every file beside its type: a browser loads nothing else, and keeps nothing.
pub const HEADERS: [(&str, &str); 4] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    // The next version of the program has another page.
    ("cache-control", "no-store"),
];

/// The file at this path.
pub fn file(path: &str) -> Option<File> {
    FILES.into_iter().find(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_found_by_its_path_and_no_other_path_has_one() {
        for expected in FILES {
            assert_eq!(file(expected.path), Some(expected));
        }
        assert_eq!(file("/other"), None);
    }

    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes < 40 << 10, "{bytes} bytes");
    }

    #[test]
    fn the_page_needs_nothing_of_the_internet_and_makes_no_markup_of_texts() {
        let forbidden =
            ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "style=", "onclick"];
        for File { path, content, .. } in FILES {
            let found: Vec<_> = forbidden.iter().filter(|word| content.contains(**word)).collect();
            assert!(found.is_empty(), "{path} has {found:?}");
        }
    }

    #[test]
    fn the_page_asks_for_everything_beside_itself() {
        for word in ["\"/events", "\"/conns", "\"/page", "`/conns"] {
            let rooted: Vec<_> = FILES.iter().filter(|file| file.content.contains(word)).collect();
            assert!(rooted.is_empty(), "{word} leaves the folder that the page is served under");
        }
    }
}
