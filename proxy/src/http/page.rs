//! The page of the admin address: files in the program, and headers that let a browser load nothing else.

use http_body_util::Full;
use hyper::{
    Response,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
};

/// Path, type and content of the files. The page needs nothing else, so that it works without the internet.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
];

/// Only files of this address run and are read, no text becomes markup, and no other page shows this one in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const HEADERS: [(&str, &str); 4] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    // The next version of the program has another page.
    ("cache-control", "no-store"),
];

/// The file at this path.
pub(super) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (_, content_type, content) = FILES.into_iter().find(|(known, _, _)| *known == path)?;
    let mut response = Response::new(Full::new(Bytes::from_static(content.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(bytes < 40 << 10, "{bytes} bytes");
    }

    #[test]
    fn the_page_needs_nothing_of_the_internet_and_makes_no_markup_of_texts() {
        let forbidden =
            ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "style=", "onclick"];
        for (path, _, content) in FILES {
            let found: Vec<_> = forbidden.iter().filter(|word| content.contains(**word)).collect();
            assert!(found.is_empty(), "{path} has {found:?}");
        }
    }
}
